"""State of OpenMMLab's modules that is not part of their state_dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
from torch import nn

from mmkd.compiled import Compiled
from mmkd.distiller import Distiller
from mmkd.generators import Stream
from mmkd.teacher import parts_of

#: ends the address of random states
STREAM = 'random_state'
#: by class, attributes that change from step to step and that later steps depend on
KEPT = {
    'BatchSyncRandomResize': ('_input_size',),
    'DropBlock': ('iter_cnt',),
    'DynamicRoIHead': (
        'iou_history',
        'beta_history',
        'bbox_assigner.pos_iou_thr',
        'bbox_assigner.neg_iou_thr',
        'bbox_assigner.min_pos_iou',
        'bbox_head.loss_bbox.beta',
    ),
}


def get_module_state(model: nn.Module) -> dict[str, Any]:
    """Plain values by address, such as ``backbone.drop.iter_cnt``; what teachers compiled, and the
    random states of peers, too."""
    state = {
        f'{name}.{path}': _plain(attrgetter(path)(owner)) for name, owner, path in _kept(model)
    }
    state |= {key: stream.state_dict() for key, stream in _streams(model)}
    return state | {key: compiled.state for key, compiled in _compiled(model)}


def set_module_state(model: nn.Module, state: Any) -> None:
    """Undo of :func:`get_module_state`; entries without a counterpart in the model are skipped."""
    if not isinstance(state, Mapping):
        return
    for name, owner, path in _kept(model):
        if f'{name}.{path}' in state:
            *way, last = path.split('.')
            holder = attrgetter('.'.join(way))(owner) if way else owner
            setattr(holder, last, state[f'{name}.{path}'])
    for key, compiled in _compiled(model):
        compiled.state = state.get(key)
    for key, stream in _streams(model):
        if key in state:
            stream.load_state_dict(state[key])


def _kept(model: nn.Module) -> Iterator[tuple[str, Any, str]]:
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            for path in KEPT.get(kind.__name__, ()):
                yield name, module, path


def _compiled(model: nn.Module) -> Iterator[tuple[str, Compiled]]:
    """What decides which batches a teacher runs compiled, and so how its numbers are rounded."""
    for name, part in parts_of(model.teachers).items() if isinstance(model, Distiller) else ():
        if part.compiled is not None:
            yield f'teachers.{name}.compiled', part.compiled


def _streams(model: nn.Module) -> Iterator[tuple[str, Stream]]:
    """Where peers draw their random numbers from."""
    for name, stream in model.peers.streams.items() if isinstance(model, Distiller) else ():
        yield f'peers.{name}.{STREAM}', stream


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value
