"""What a network gives for a probe image, before and after an edit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmkd.functional.nested import flatten
from mmkd.plan.probe import first_that_runs, probe, sizes_for
from mmkd.tap import Tap

#: largest difference of outputs that is rounding, in float32
ROUNDING = 1e-5


def outputs(model: nn.Module, size: int | None = None) -> tuple[int, dict[str, list[Tensor]]]:
    """What the parts of a network give for one image, in evaluation mode.

    Args:
        size (int | None): side of the image; None: the first at which the network runs.

    Returns:
        tuple: the size, and the tensors of each part, such as backbone and neck, by its name. The
        box heads of a two-stage detector see the same boxes, whatever its RPN proposes.

    Raises:
        Exception: any error of the network.
    """
    taps = {name: Tap.parse(f'{name}.forward()') for name in _parts(model)}
    if not taps:
        raise ValueError(f'{type(model).__name__} has no parts that could be looked at.')

    def run(side: int) -> dict[str, list[Tensor]]:
        with _same_boxes(model, side):
            found = probe(model, taps.values(), side)
        return {name: flatten(found.raw(tap)) for name, tap in taps.items() if found.raw(tap)}

    return first_that_runs(sizes_for([model]) if size is None else [size], run)


def _parts(model: nn.Module) -> Iterator[str]:
    for name, child in model.named_children():
        own = type(child).forward is not nn.Module.forward
        if own and name != 'data_preprocessor' and any(True for _ in child.parameters()):
            yield name
        elif isinstance(child, nn.ModuleList):
            yield from (f'{name}.{i}' for i in range(len(child)))


@contextlib.contextmanager
def _same_boxes(model: nn.Module, size: int) -> Iterator[None]:
    """Let an RPN propose the same boxes whatever it computes: nearly equal scores change places."""
    rpn = getattr(model, 'rpn_head', None)
    if not hasattr(rpn, 'prior_generator') or not hasattr(model, 'roi_head'):
        yield
        return
    corners = [[0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1], [0, 0.5, 1, 1], [0.1, 0, 0.3, 0.9]]
    like = next(model.parameters())
    boxes = like.new_tensor(corners) * size
    proposals = InstanceData(bboxes=boxes, scores=boxes[:, 0], labels=boxes[:, 0].long())

    def predict(feats: Any, *_: Any, **__: Any) -> list[InstanceData]:
        rpn.forward(feats)  # which is looked at
        return [proposals]

    rpn.__dict__['predict'] = predict
    try:
        yield
    finally:
        del rpn.__dict__['predict']


def largest_difference(
    before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]
) -> tuple[float, str]:
    """Largest absolute difference of two :func:`outputs`, and the part in which it is.

    Raises:
        ValueError: another number of tensors, or another shape.
    """
    check_shapes(before, after)
    most, where = 0.0, ''
    for name, found in after.items():
        for x, y in zip(before[name], found, strict=True):
            gap = float((x.float() - y.float()).abs().max()) if x.numel() else 0.0
            if not gap <= most:  # NaN counts
                most, where = gap, name
    return most, where


def check_shapes(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> None:
    """Refuse outputs of other shapes.

    Raises:
        ValueError: names the first part that differs.
    """
    for name in dict.fromkeys([*before, *after]):
        shapes = [
            ', '.join(str(tuple(x.shape)) for x in side.get(name, ())) or 'nothing'
            for side in (before, after)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(f'{name} gives {shapes[1]} instead of {shapes[0]}')


def same_outputs(one: nn.Module, other: nn.Module) -> tuple[float, str]:
    """Largest difference of two networks for one image, and the part in which it is.

    For makers whose result is to do what the network before did.

    Raises:
        ValueError: outputs of other shapes.
    """
    size, before = outputs(one)
    return largest_difference(before, outputs(other, size)[1])
