"""Function: class scores of any callable, such as a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from mmkd.encoders.named_object import named_object
from mmkd.options import check_number
from mmkd.pixels import Pixels
from mmkd.teachers.black_box import BlackBox, as_images, as_logits
from mmkd.teachers.kinds import kind


@kind
class Function(BlackBox):
    """A function of images, such as a call of a service, as teacher.

    Args:
        call (str | Callable): ``'package.module:function'`` or ``'file.py:function'``; it gets
            uint8 RGB images (N, H, W, 3) without padding, of one size, and returns class
            probabilities (N, K) of a classifier, (N, K, H, W) of a segmentor.
        hard (bool): it returns labels (N,) or (N, H, W) instead.
        budget (int | None): images that may be asked in the whole run, over all processes.

    Raises:
        TypeError: nothing that can be called.
        ValueError: no such function; answers of another form; the budget is spent.
    """

    def __init__(self, call: str | Callable, hard: bool = False, budget: int | None = None) -> None:
        self.call, self.hard = _callable(call), hard
        self.name = call if isinstance(call, str) else getattr(call, '__name__', str(call))
        self.budget = check_number('Function', 'budget', budget, 1, whole=True, optional=True)
        self.asked = 0

    @property
    def loaded(self) -> str:
        limit = '' if self.budget is None else f', asked for at most {self.budget} images'
        return f'{self.name}{limit}'

    def logged(self) -> dict[str, float]:
        return dict(queries=self.asked)

    def scores(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Tensor:
        self.asked += len(inputs) * get_world_size()
        if self.budget is not None and self.asked > self.budget:
            raise ValueError(
                f'Function: the budget of {self.budget} images is spent. Let the objective stop '
                'earlier (weight=dict(stop=…)), or train fewer steps.'
            )
        images = as_images(inputs, samples, student_pixels)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(tuple(image.shape), []).append(i)
        if self.by_pixel and len(sizes) > 1:
            raise ValueError(
                'Function: answers for pixels of images of unequal sizes do not make a batch. Let '
                'the pipeline crop or resize them to one size.'
            )
        found: list[Tensor] = [inputs] * len(images)
        for at in sizes.values():
            answer = self.call(np.stack([images[i] for i in at]))
            rows = as_logits(
                f'Function {self.name}', answer, len(at), self.classes, self.by_pixel, self.hard
            )
            for i, row in zip(at, rows, strict=True):
                found[i] = row
        logits = torch.stack(found)
        if self.by_pixel:  # nothing is said on padding, where all classes are alike
            (h, w), (full_h, full_w) = logits.shape[2:], inputs.shape[2:]
            logits = nn.functional.pad(logits, (0, full_w - w, 0, full_h - h))
        return logits

    def state_dict(self) -> dict[str, Any]:
        return dict(asked=self.asked)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.asked = int(state['asked'])


def _callable(call: Any) -> Callable:
    """The function itself, or the one that a text names."""
    if callable(call):
        return call
    if not isinstance(call, str):
        raise TypeError(
            f"Function: call must be a function or 'package.module:function', found {call!r}."
        )
    found = named_object('Function: call', call)
    if not callable(found):
        raise TypeError(f'Function: {call!r} is a {type(found).__name__}, which cannot be called.')
    return found
