"""The weights in a checkpoint, and its description of the training data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from mmkd.checkpoint.checkpoint_error import CheckpointError

OBJECTIVES = 'objectives.'
PEERS = 'peers.'
EDITS = 'edits.'
#: what a distillation run saves beside its student
BESIDE = (OBJECTIVES, PEERS, EDITS)


def weights_in(checkpoint: Mapping) -> OrderedDict:
    """All weights of a checkpoint of any layout, under the file's own names.

    Takes ``state_dict``, ``model`` or the mapping itself; of a mapping of mappings
    (``{'student': …, 'teacher': …}``) all, with their names in front.

    Raises:
        CheckpointError: there are no tensors in it.
    """
    found: Mapping = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            found = checkpoint[key]
            break
    weights = _tensors(found)
    for name, part in checkpoint.items() if not weights else ():
        if isinstance(part, Mapping) and name not in ('optimizer', 'meta'):
            weights.update((f'{name}.{key}', value) for key, value in _tensors(part).items())
    if not weights:
        names = ', '.join(map(str, list(found)[:8])) or 'nothing'
        raise CheckpointError(
            f"no weights in the checkpoint: expected tensors under 'state_dict', 'model' or at "
            f'the top, found {names}.'
        )
    if hasattr(found, '_metadata'):
        # Module versions: old layouts are upgraded by the modules themselves.
        weights._metadata = found._metadata  # type: ignore[attr-defined]
    return weights


def _tensors(found: Mapping) -> OrderedDict:
    pairs = ((k, v) for k, v in found.items() if isinstance(k, str))
    return OrderedDict(
        (k, v) for k, v in pairs if isinstance(v, torch.Tensor) or k.endswith('_extra_state')
    )


def below(weights: Mapping, prefix: str, source: str) -> OrderedDict:
    """The weights that begin with ``prefix``, under names without it.

    Raises:
        CheckpointError: there are none.
    """
    found = OrderedDict((k[len(prefix) :], v) for k, v in weights.items() if k.startswith(prefix))
    if not found:
        known = sorted({f'{key.partition(".")[0]}.' for key in weights})
        raise CheckpointError(
            f'{source} has no weights under {prefix!r}; it has {", ".join(known[:8])}.'
        )
    return found


def weights_of_one(checkpoint: Mapping, who: str, source: str) -> dict[str, Any]:
    """A checkpoint with the weights of one network alone, under a plain model's names.

    Args:
        who (str): ``'student'``, or ``'peers.<name>'``.
        source (str): its file, for messages.

    Raises:
        CheckpointError: the file holds no such network.
    """
    if who == 'student':
        return dict(checkpoint)
    state = weights_in(checkpoint)
    peers = sorted({key.split('.')[1] for key in state if key.startswith(PEERS)})
    if who not in [PEERS + name for name in peers]:
        known = ', '.join(['student', *(PEERS + name for name in peers)])
        raise CheckpointError(f'{source} holds no network {who!r}; it holds {known}.')
    return dict(checkpoint, state_dict=below(state, f'{who}.', source))


def dataset_meta_of(checkpoint: Mapping) -> dict[str, Any]:
    """The file's description of its training data, such as ``classes``; {} without any.

    Keys are lower case, as OpenMMLab writes them today.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    found = meta.get('dataset_meta') or {'classes': meta.get('CLASSES')}
    pairs = found.items() if isinstance(found, Mapping) else ()
    told = {k.lower(): v for k, v in pairs if isinstance(k, str) and v is not None}
    if 'classes' in told and not _are_names(told['classes']):
        del told['classes']
    return told


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
