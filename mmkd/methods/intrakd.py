"""IntRAKD: cosine affinity between class regions, by mean, variance and skewness of features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmkd.families import segmentor
from mmkd.functional.areas import areas_of_interest, classes_in
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace

#: a region of fewer cells has no variance or skewness worth comparing
FEWEST_CELLS = 4
_EPS = 1e-6


def region_moments(
    features: Tensor, areas: Tensor, norm: str = 'area', classes: Iterable[int] | None = None
) -> Tensor:
    """Mean, variance and standardised third moment of each class's features.

    Args:
        features (Tensor): (N, C, h, w).
        areas (Tensor): weights (N, K, h, w).
        norm (str): sums are divided by the ``'area'`` of the class or by ``'hw'``, all cells.
        classes (Iterable[int] | None): those that occur, among others; all if it is not given.

    Returns:
        Tensor: (N, K, 3, C); zero for classes of fewer than four cells.
    """
    flat, weights = features.flatten(2), areas.flatten(2).to(features.dtype)
    count = weights.sum(2) if norm == 'area' else weights.new_full(weights.shape[:2], flat.shape[2])
    weights = weights / count.clamp(min=1e-10)[..., None]
    present = (areas.flatten(2) > 0).sum(2) >= FEWEST_CELLS
    found = flat.new_zeros(*weights.shape[:2], 3, flat.shape[1]) + 0.0 * flat.sum()
    # A class at a time, and again backwards: no (N, K, C, m) tensor is held.
    for k in range(areas.shape[1]) if classes is None else classes:
        found[:, k] = checkpoint(
            _moments, flat, weights[:, k], use_reentrant=False, preserve_rng_state=False
        )
    return found * present[..., None, None]


def _moments(flat: Tensor, weight: Tensor) -> Tensor:
    """(N, C, m) and (N, m) -> (N, 3, C)."""
    weight = weight[:, None]
    mean = (flat * weight).sum(2)
    apart = flat - mean[..., None]
    variance = (apart.square() * weight).sum(2)
    deviation = (variance + _EPS**2).sqrt() + _EPS
    skewness = ((apart / deviation[..., None]) ** 3 * weight).sum(2)
    return torch.stack((mean, variance, skewness), 1)


def region_affinity(moments: Tensor) -> Tensor:
    """Cosine of any two classes, moment by moment, (N, K, 3, C) -> (N, 3, K, K); 0 if absent."""
    unit = F.normalize(moments.transpose(1, 2), dim=3)
    return unit @ unit.mT


def affinity_distance(
    student: Tensor, teacher: Tensor, moments: tuple[int, ...] = (1, 2, 3), present: bool = False
) -> Tensor:
    """``1 / (R K^2) * sum (G^s - G^t)^2`` over R moments and pairs of classes, mean over N.

    Args:
        student, teacher (Tensor): moments (N, K, 3, C_s) and (N, K, 3, C_t).
        moments (tuple[int, ...]): which of the three take part.
        present (bool): K counts the classes of the image instead of all.
    """
    chosen = [r - 1 for r in moments]
    error = (region_affinity(student) - region_affinity(teacher))[:, chosen].square().sum((1, 2, 3))
    count = torch.full_like(error, student.shape[1])
    if present:
        count = teacher.flatten(2).ne(0).any(2).sum(1).clamp(min=1).to(error.dtype)
    return (error / (len(chosen) * count.square())).mean()


@MODELS.register_module()
class IntRAKD(PairObjective):
    """Inter-region affinity knowledge distillation for road marking segmentation.

    Hou et al., CVPR 2020, the affinity term, by default on the features before the classifier,
    whatever their widths; the paper's attention term is AT beside it. There is no public code of
    the distillation: options cover the choices that paper and authors leave open, and the defaults
    are an interpretation.

    Args:
        weight: 0.1.
        kernel (int): side of the window that smooths the class maps, odd; 1 for none. A window so
            large that all regions cover the same cells is reported.
        binary (bool): regions are where the smoothed map is above 0; else they are weighted by it.
        moments (tuple[int, ...]): among 1 (mean), 2 (variance) and 3 (skewness).
        norm (str): moments are divided by the ``'area'`` of the region, or by ``'hw'`` as the
            authors explain their code.
        present_only (bool): the divisor counts the classes in the image instead of all.
        exclude (tuple[int, ...]): classes without a region, for instance a background.
        ignore_index (int): label of pixels in no region.
        student, teacher, teacher_name, learner, resize, level_map: see PairObjective.

    Raises:
        ValueError: options out of range; models without a decode head; no labels; a label out of
            range in the first batch.
    """

    default_weight = 0.1
    needs_ground_truth = True
    rank_invariant = True
    adapts_width = False
    label_free = False
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        kernel: int = 11,
        binary: bool = True,
        moments: tuple[int, ...] = (1, 2, 3),
        norm: str = 'area',
        present_only: bool = False,
        exclude: tuple[int, ...] = (),
        ignore_index: int = 255,
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, resize, level_map, learner=learner
        )
        self.kernel = check_number('IntRAKD', 'kernel', kernel, 1, whole=True)
        if self.kernel % 2 == 0:
            raise ValueError(f'IntRAKD: kernel must be an odd number, found {kernel!r}.')
        if not moments or not set(moments) <= {1, 2, 3}:
            raise ValueError(f'IntRAKD: moments are among 1, 2 and 3, found {moments!r}.')
        self.binary, self.moments = binary, tuple(moments)
        self.norm = check_choice('IntRAKD', 'norm', norm, ('area', 'hw'))
        self.present_only, self.exclude = present_only, tuple(exclude)
        self.ignore_index = check_number('IntRAKD', 'ignore_index', ignore_index, whole=True)
        self.classes, self.told = 0, False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_features(self, student, teacher)
        segmentor.check_labelled('IntRAKD', student)
        self.classes = max(segmentor.classes(student), 2)
        if not set(self.exclude) <= set(range(self.classes)):
            known = f'classes 0 to {self.classes - 1}'
            raise ValueError(f'IntRAKD: exclude={self.exclude} are not all among {known}.')

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        labels = segmentor.known_labels(self, trace.samples, self.classes, self.ignore_index)
        for k in self.exclude:
            labels = labels.masked_fill(labels == k, -1)
        losses, known = [], classes_in(labels, self.classes)
        for student, teacher in self.maps(trace):
            areas = areas_of_interest(
                labels, self.classes, student.shape[2:], self.kernel, self.binary, known
            )
            self._report_equal_regions(areas)
            pair = (region_moments(x, areas, self.norm, known) for x in (student, teacher))
            losses.append(affinity_distance(*pair, self.moments, self.present_only))
        return {'loss': sum(losses)}

    def _report_equal_regions(self, areas: Tensor) -> None:
        covers = (areas > 0).flatten(2)
        some = covers.any(2)
        if not self.told and bool((some.sum(1) > 1).any() & (covers.all(2) | ~some).all()):
            warnings.warn(
                f'IntRAKD: kernel={self.kernel} spreads every region over the whole map; lower it.',
                stacklevel=2,
            )
        self.told = True
