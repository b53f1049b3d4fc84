"""Pictures of an objective: maps over the padded batch, or boxes in it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

KINDS = ('mask', 'heat', 'classes')


@dataclass(frozen=True)
class View:
    """One map for each image of a batch, aligned with the padded input.

    Views of equal ``title`` and size stand side by side, in one colour scale.

    Attributes:
        title (str): its name, e.g. ``'attention'``.
        maps (Tensor): (N, h, w): bool for ``'mask'``, numbers of at least 0 for ``'heat'``, class
            indices for ``'classes'``.
        kind (str): ``'mask'``, ``'heat'`` or ``'classes'``.
        side (str): ``'student'``, ``'teacher'``, or ``''`` for neither.
        stride (int | None): input pixels per cell; ``None``: derived from the sizes.
        centre (float): where in its cell a value belongs, as a share of the stride: 0.5 in the
            middle, 0 at the upper left corner, where mmdet centres its anchors.
        unit (str): the meaning of a heat of 1, e.g. ``'x uniform'``.
        scale (float): the colours of a heat reach at least this far.

    Raises:
        ValueError: maps of another rank, an unknown kind or side.
    """

    title: str
    maps: Tensor
    kind: str = 'heat'
    side: str = ''
    stride: int | None = None
    centre: float = 0.5
    unit: str = ''
    scale: float = 0.0

    def __post_init__(self) -> None:
        if self.maps.dim() != 3:
            raise ValueError(
                f'view {self.title!r}: maps must be (N, h, w), found {tuple(self.maps.shape)}.'
            )
        if self.kind not in KINDS:
            raise ValueError(f'view {self.title!r}: kind {self.kind!r} is none of {KINDS}.')
        _check_side(self.title, self.side)


@dataclass(frozen=True)
class Boxes:
    """Boxes with the predictions of one side.

    Attributes:
        title (str): their name, e.g. ``'RoIs of largest KL'``.
        boxes (Tensor): (R, 5), image index and xyxy in pixels of the padded input.
        labels (Tensor | None): (R,), class indices; an index beyond the classes is background.
        scores (Tensor | None): (R,), in [0, 1].
        side (str): as in :class:`View`.
    """

    title: str
    boxes: Tensor
    labels: Tensor | None = None
    scores: Tensor | None = None
    side: str = ''

    def __post_init__(self) -> None:
        if self.boxes.dim() != 2 or self.boxes.shape[1] != 5:
            raise ValueError(
                f'view {self.title!r}: boxes must be (R, 5), found {tuple(self.boxes.shape)}.'
            )
        _check_side(self.title, self.side)


def _check_side(title: str, side: str) -> None:
    if side not in ('', 'student', 'teacher'):
        raise ValueError(
            f"view {title!r}: side must be 'student', 'teacher' or '', found {side!r}."
        )
