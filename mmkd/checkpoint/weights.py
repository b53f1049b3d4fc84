"""The weights in a checkpoint, and what it says of the data it was trained on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from mmkd.checkpoint.errors import CheckpointError

OBJECTIVES = 'objectives.'


def state_dict_of(checkpoint: Mapping) -> dict:
    """Return the plain model weights of a checkpoint, whatever its layout.

    Takes ``state_dict``, ``model`` or the mapping itself; strips a ``module.`` in front of every
    key; drops what mmkd's objectives learned, so that a distilled student can be a teacher.

    Raises:
        CheckpointError: there are no tensors in it.
    """
    found = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            found = checkpoint[key]
            break
    weights = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not weights:
        names = ', '.join(map(str, list(found)[:8])) or 'nothing'
        raise CheckpointError(
            f"no weights in the checkpoint: expected tensors under 'state_dict', 'model' or at "
            f'the top, found {names}.'
        )
    prefix = 'module.' if all(k.startswith('module.') for k in weights) else ''
    state = OrderedDict((k[len(prefix) :], v) for k, v in weights.items())
    state = OrderedDict((k, v) for k, v in state.items() if not k.startswith(OBJECTIVES))
    if hasattr(found, '_metadata') and not prefix:
        # Module versions: old layouts are upgraded by the modules themselves.
        state._metadata = found._metadata  # type: ignore[attr-defined]
    return state


def dataset_meta_of(checkpoint: Mapping) -> dict[str, Any]:
    """What the file says of the data it was trained on, such as ``classes``; {} if nothing.

    Keys are lower case, as OpenMMLab writes them today.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    found = meta.get('dataset_meta') or {'classes': meta.get('CLASSES')}
    return {k.lower(): v for k, v in found.items() if v is not None}
