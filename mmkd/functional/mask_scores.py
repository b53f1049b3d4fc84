"""Class scores of pixels, from the classes and masks of queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmkd.functional.nested import flatten
from mmkd.functional.padding import crop_padding
from mmkd.functional.resize import resize

#: added to P before the logarithm; no half-precision number
EPS = 1e-6


def pixel_scores(classes: Tensor, masks: Tensor, background: int | None = None) -> Tensor:
    """``log(P_k + 1e-6)``, ``P_k = sum_q softmax(x_q)_k sigmoid(y_q)``, which are class logits.

    This is how MaskFormer, Mask2Former and SAN predict (Cheng et al., NeurIPS 2021, section 3.4),
    and its logarithm, so that the softmax over classes is P divided by its sum. P has no column
    for "no object". Where no query claims a pixel, P is near 0 for all classes.

    Args:
        classes (Tensor): x, logits (N, Q, K + 1), "no object" last.
        masks (Tensor): y, logits (N, Q, h, w).
        background (int | None): with a further class at this place, of what no class claims:
            ``1 - max_k P_k``, at least 0. Interpretation, for networks that know things alone.

    Returns:
        Tensor: (N, K, h, w), or (N, K + 1, h, w) with a background.
    """
    found = torch.einsum('nqk,nqhw->nkhw', classes.softmax(-1)[..., :-1], masks.sigmoid())
    if background is not None:
        rest = (1 - found.amax(1, keepdim=True)).clamp(min=0)
        found = torch.cat((found[:, :background], rest, found[:, background:]), 1)
    return (found + EPS).log()


@dataclass(frozen=True)
class MaskScores:
    """:func:`pixel_scores` that are yet to be computed, at a size of choice.

    Masks are resized, then put through the sigmoid: the other order gives another map.

    Args:
        classes, masks (Tensor): logits of all queries, (N, Q, K + 1) and (N, Q, h, w).
        background (int | None): see :func:`pixel_scores`.
    """

    classes: Tensor
    masks: Tensor
    background: int | None = None

    @classmethod
    def of(cls, value: Any, background: int | None = None) -> MaskScores:
        """From what a head's ``forward()`` gives: two lists, or stacks, of all its layers.

        The last layer counts. The two are told apart by their dimensions, since SAN gives the masks
        first.

        Raises:
            ValueError: something else.
        """
        parts = [part[-1] for part in value] if isinstance(value, (list, tuple)) else []
        parts.sort(key=lambda part: getattr(part, 'ndim', 0))
        if [getattr(part, 'ndim', 0) for part in parts] != [3, 4]:
            found = ', '.join(str(tuple(getattr(part, 'shape', ()))) for part in parts)
            raise ValueError(
                'class scores are made of classes (N, Q, K + 1) and masks (N, Q, h, w) of queries, '
                f'but its layers give {found or "nothing"}.'
            )
        classes, masks = (part.float() for part in parts)
        count = classes.shape[2] - 1
        if background is not None and background > count:
            raise ValueError(
                f'background={background} is no place beside {count} classes, 0 to {count - 1}; '
                f'the last one possible is {count}.'
            )
        return cls(classes, masks, background)

    @property
    def shape(self) -> torch.Size:
        """(N, K, h, w) of the scores at the masks' own size."""
        n, _, outputs = self.classes.shape
        count = outputs - (self.background is None)
        return torch.Size((n, count, *self.masks.shape[2:]))

    def at(self, size: tuple[int, int] | None = None) -> Tensor:
        """The scores (N, K, h, w), at the masks' own size or at another."""
        masks = self.masks
        if size is not None and tuple(size) != tuple(masks.shape[2:]):
            masks = resize(masks, size)
        return pixel_scores(self.classes, masks, self.background)

    def detach(self) -> MaskScores:
        """Constants of the same values."""
        return replace(self, classes=self.classes.detach(), masks=self.masks.detach())

    def cropped(self, seen: Tensor, student_seen: Tensor | tuple[int, int]) -> MaskScores:
        """Without padding that ``seen``, pixels (N, 3, H, W), has alone; see ``crop_padding``."""
        return replace(self, masks=crop_padding(self.masks, seen, student_seen))


def scores_of(value: Any, background: int | None = None) -> MaskScores | Tensor:
    """Class scores of what a head's ``forward()`` gives, or of a mean of several heads, which is a
    map (N, K, h, w) of scores already; arguments and errors as :meth:`MaskScores.of`."""
    tensors = flatten(value)
    if len(tensors) == 1 and tensors[0].dim() == 4:
        return tensors[0].float()
    return MaskScores.of(value, background)
