"""What makers write that change the shape of a trained network: its config and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmkd.chain import Product
from mmkd.makers.networks import write_network
from mmkd.students import import_edits, is_edited
from mmkd.teacher import build_model, load_strictly


def write_reshaped(
    work_dir: str,
    name: str,
    config: Config,
    edits: Sequence[Mapping[str, Any]],
    state: Mapping[str, Tensor],
) -> Product:
    """Write ``<name>.py``, which builds the edited network, and ``<name>.pth``, its weights.

    Args:
        config (Config): of the network before.

    Raises:
        ValueError, CheckpointError: the config does not build a network of these weights.
    """
    _without_start(config.model)
    if edits:
        before = config.model if is_edited(config.model) else dict(model=config.model, edits=[])
        every = [*before['edits'], *edits]
        config.model = dict(type='mmkd.Edited', model=before['model'], edits=every)
        import_edits(config)
    product = write_network(work_dir, name, config, dict(state))
    load_strictly(build_model(product.config), product.checkpoint)
    return product


def _without_start(entry: Any) -> None:
    """Leave out weights to start from: they are those of the network before, and do not fit."""
    if isinstance(entry, Mapping):
        init = entry.get('init_cfg')
        if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
            entry['init_cfg'] = None  # type: ignore[index]
        for value in entry.values():
            _without_start(value)
    elif isinstance(entry, (list, tuple)):
        for value in entry:
            _without_start(value)
