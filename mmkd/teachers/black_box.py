"""What teachers that are no network have in common: class scores that come from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmkd.families import classifier
from mmkd.pixels import Pixels
from mmkd.scales import seen_by_teachers
from mmkd.tap import Recorder, Side, Tap
from mmkd.teacher import Teacher
from mmkd.teachers.stand_in import StandIn

#: the least probability, whose logarithm is finite
LEAST = 1e-8
#: how far the sum of a row of probabilities may be from 1
SUM = 1e-3


class BlackBox(Teacher):
    """Class scores from elsewhere, at the place where a network like the student's has its own."""

    asks = False
    classes = 0

    def meet(self, student: nn.Module) -> None:
        owner = type(self).__name__
        self.adopt(StandIn.of(owner, student), owner)
        assert isinstance(self.model, StandIn)
        self.classes, self.by_pixel = self.model.classes, self.model.tap != classifier.LOGITS

    def set_taps(self, taps: Any) -> None:
        taps = list(taps)
        self.recorder, self.route = Recorder(self.model, taps), 'no network'

    def admit(self, objective: Any) -> None:
        super().admit(objective)
        own = Tap.parse(str(getattr(self.model, 'tap', '')))
        for tap in objective.teacher_taps:
            if tap.source != own.source:
                raise ValueError(
                    f"{type(objective).__name__} listens at '{tap}', but {type(self).__name__} "
                    f"shows class scores alone, at '{own}'. Take a method on class scores, such as "
                    'KD.'
                )

    def start(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Side:
        """Logits for the student's batch (N, 3, H, W), at the taps."""
        assert self.recorder is not None, 'set_taps() first'
        inputs, samples = seen_by_teachers(inputs, samples)
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            logits = self.scores(inputs, samples, student_pixels).to(inputs.device)
        return Side(self.model, inputs, {source: [[logits]] for source in self.recorder.taps})

    def scores(self, inputs: Tensor, samples: list, student_pixels: Pixels) -> Tensor:
        """Logits (N, K) or (N, K, h, w), in float32."""
        raise NotImplementedError


def as_logits(owner: str, found: Any, count: int, classes: int, pixels: bool, hard: bool) -> Tensor:
    """Probabilities as logits, ``log(max(p, 1e-8))``, in float32.

    Args:
        owner (str): for messages.
        found (Tensor | ndarray): probabilities (N, K), of pixels (N, K, h, w); if ``hard``, labels
            (N,) or (N, h, w).
        count (int): N.
        classes (int): K.

    Raises:
        TypeError: no numbers.
        ValueError: another shape; NaN or infinity; negative numbers; rows that do not sum to 1; a
            label beyond the classes.
    """
    values = _as_tensor(owner, found)
    wanted = [f'{count}', *([] if hard else [f'{classes}']), *(['h', 'w'] if pixels else [])]
    fixed = [count] if hard else [count, classes]
    if values.dim() != len(wanted) or list(values.shape[: len(fixed)]) != fixed:
        raise ValueError(
            f'{owner} must give {"labels" if hard else "probabilities"} ({", ".join(wanted)}), '
            f'found the shape {tuple(values.shape)}.'
        )
    if hard:
        labels = values.long()
        if values.is_floating_point() and bool((values != labels).any()):
            raise ValueError(f'{owner} must give labels as whole numbers, found fractions.')
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise ValueError(
                f'{owner} gave labels from {int(labels.min())} to {int(labels.max())}, but there '
                f'are {classes} classes.'
            )
        values = nn.functional.one_hot(labels, classes).movedim(-1, 1)
    values = values.float()
    if not bool(values.isfinite().all()):
        raise ValueError(f'{owner} gave NaN or infinity.')
    sums = values.sum(1)
    if bool((values < 0).any()) or bool(((sums - 1).abs() > SUM).any()):
        raise ValueError(
            f'{owner} must give probabilities, whose rows sum to 1, but they sum to '
            f'{float(sums.min()):.4g} to {float(sums.max()):.4g} and the least is '
            f'{float(values.min()):.4g}. Let it end with a softmax.'
        )
    return values.clamp(min=LEAST).log()


def _as_tensor(owner: str, found: Any) -> Tensor:
    if isinstance(found, Tensor):
        return found
    try:
        return torch.as_tensor(np.asarray(found))
    except (TypeError, ValueError):  # None, text, lists of unequal lengths
        raise TypeError(
            f'{owner} must give an array or tensor of numbers, found {found!r:.200}.'
        ) from None


def as_images(inputs: Tensor, samples: list, pixels: Pixels) -> list[np.ndarray]:
    """uint8 RGB (H, W, 3) of a normalised batch, without padding."""
    plain = Pixels(None, pixels.channels)  # not normalised, in the same order of channels
    plain.swapped = pixels.swapped
    raw = plain.translate(inputs, samples, pixels)
    raw = raw if pixels.swapped else raw.flip(1)  # images are loaded as BGR
    images = raw.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    found = []
    for image, sample in zip(images, samples or [None] * len(images), strict=True):
        shape = None if sample is None else sample.metainfo.get('img_shape')
        h, w = image.shape[:2] if shape is None else shape[:2]
        found.append(np.ascontiguousarray(image[:h, :w]))
    return found
