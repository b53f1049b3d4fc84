"""The --cfg-options with which a model's heads are built for the classes of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmkd.config import distils
from mmkd.families.class_heads import WrongHead


def options_for(wrong: Sequence[WrongHead], config: Any = None) -> list[str]:
    """``path=value`` for each argument that must change.

    Args:
        config (Config | None): of the run. It has the path of the student, one mapping for all
            stages of a cascade, and class weights that must change as well.
    """
    model = (config or {}).get('model') or {}
    prefix = 'model'
    if distils(model):
        prefix, model = 'model.student', model['student']
    model = model if isinstance(model, Mapping) else {}
    found: dict[str, Any] = {}
    for misfit in wrong:
        place = _place(model, misfit.path)
        if place is None or _is_told_inside(place[1], misfit, wrong):
            continue
        where, node = place
        path = '.'.join([prefix, *where])
        for key, value in _arguments(node, misfit).items():
            found[f'{path}.{key}'] = value
        for key, value in _class_weights(node, misfit):
            found[f'{path}.{key}'] = value
    for path, new in _of_training(model, wrong):
        found[f'{prefix}.{path}'] = new
    return [f'{key}={_text(value)}' for key, value in found.items()]


def _place(model: Mapping, path: str) -> tuple[list[str], Mapping] | None:
    """Where a module's config lies, and the config; None where an outer one makes the module."""
    parts = path.split('.') if path else []
    if not model:
        return parts, {}
    found = _follow(model, parts)
    # Semi-supervised: the config of a detector makes modules called student and teacher.
    if found is None and 'head' not in parts[0] and parts[0] not in model:
        inner = {k: _follow(v, parts[1:]) for k, v in model.items() if isinstance(v, Mapping)}
        found = next(((([k, *v[0]], v[1])) for k, v in inner.items() if v and v[0]), None)
    return found


def _follow(node: Any, parts: list[str]) -> tuple[list[str], Mapping] | None:
    """The config at a module's path; one mapping may stand for all stages of a cascade."""
    where = []
    for part in parts:
        if part.isdigit() and isinstance(node, Mapping):
            continue
        if part.isdigit() and isinstance(node, (list, tuple)) and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return None
        where.append(part)
    return (where, node) if isinstance(node, Mapping) else None


def _is_told_inside(node: Mapping, misfit: WrongHead, wrong: Sequence[WrongHead]) -> bool:
    """Whether the number of a head is that of a module in it which has a config of its own."""
    inside = [other.path for other in wrong if other.path.startswith(f'{misfit.path}.')]
    own = any(key in node for key in ('num_classes', 'num_things_classes'))
    names = [path.removeprefix(f'{misfit.path}.').partition('.')[0] for path in inside]
    return not own and any('num_classes' in (node.get(name) or {}) for name in names)


def _arguments(node: Mapping, misfit: WrongHead) -> dict[str, Any]:
    """Options for the head, under the names that its config uses."""
    wanted = dict(misfit.wanted)
    count = wanted.get('num_classes')
    if 'num_things_classes' in node and 'num_classes' not in node and count is not None:
        # Instances only: all are things.
        return dict(num_things_classes=count, num_stuff_classes=0)
    if 'out_channels' in wanted and 'out_channels' not in node:
        del wanted['out_channels']
    return wanted


def _class_weights(node: Mapping, misfit: WrongHead) -> Iterator[tuple[str, Any]]:
    """Lists with a weight for each class, in the losses of a head: they need another length."""
    total = sum(v for k, v in misfit.wanted.items() if k.endswith('classes'))
    for name, loss in node.items():
        losses = loss if isinstance(loss, (list, tuple)) else [loss]
        for index, one in enumerate(losses):
            weights = one.get('class_weight') if isinstance(one, Mapping) else None
            if not isinstance(weights, (list, tuple)) or len(weights) - misfit.found not in (0, 1):
                continue
            key = f'{name}.{index}' if one is not loss else name
            yield f'{key}.class_weight', _resized(list(weights), misfit.found, total)


def _resized(weights: list, old: int, new: int) -> list | None:
    """Equal weights for another number of classes, a background's kept; None if they differ."""
    if len(set(weights[:old])) > 1:
        return None
    return [*weights[:1] * new, *weights[old:]]


def _of_training(model: Mapping, wrong: Sequence[WrongHead]) -> Iterator[tuple[str, int]]:
    """``num_classes`` in train_cfg and test_cfg, for assigners, where it equals the head's."""
    changes = {m.found: m.wanted['num_classes'] for m in wrong if 'num_classes' in m.wanted}

    def walk(node: Any, path: str) -> Iterator[tuple[str, int]]:
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            if key == 'num_classes' and value in changes:
                yield f'{path}.{key}', changes[value]
            elif isinstance(value, (Mapping, list, tuple)):
                yield from walk(value, f'{path}.{key}')

    for part in ('train_cfg', 'test_cfg'):
        if isinstance(model.get(part), (Mapping, list, tuple)):
            yield from walk(model[part], part)


def _text(value: Any) -> str:
    return str(value).replace(' ', '')
