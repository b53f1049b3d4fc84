"""CIRKD: KL divergence of pixel-to-pixel similarities across the images of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, segmentor
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.parts import sum_in_parts
from mmkd.functional.relations import smooth_unit
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace

#: similarities held at a time, for each network; more are computed in parts, and again backwards
_AT_ONCE = 2**24


def relation_kl(queries: tuple[Tensor, ...], keys: tuple[Tensor, ...], tau: float) -> Tensor:
    """Sum over queries and images of ``KL(softmax_m(T / tau) || softmax_m(S / tau))``.

    Args:
        queries: pixels (R, C) of student and teacher.
        keys: pixels (N, m, C) of student and teacher; the softmax is over those of one image.
        tau (float): temperature.
    """
    student, teacher = ((q @ k.mT) / tau for q, k in zip(queries, keys, strict=True))
    return soft_kl(student, teacher, 1.0).sum()


def cross_image_relations(student: Tensor, teacher: Tensor, tau: float = 0.1) -> Tensor:
    """Mean over all ordered pairs of images, an image with itself too, and over pixels.

    Args:
        student, teacher (Tensor): (N, C_s, H, W) and (N, C_t, H, W).
        tau (float): temperature.
    """
    keys = smooth_unit(student.flatten(2).mT), smooth_unit(teacher.flatten(2).mT)
    n, m = keys[0].shape[:2]

    def part(*queries: Tensor) -> Tensor:
        return relation_kl(queries, keys, tau)

    queries = [key.flatten(0, 1) for key in keys]
    return sum_in_parts(part, queries, max(_AT_ONCE // (n * m), 1)) / (n**2 * m)


@MODELS.register_module()
class CIRKD(PairObjective):
    """Cross-image relational knowledge distillation, the mini-batch term.

    Yang et al., CVPR 2022, between pixels of the local batch, by default in the features
    before the classifier, whatever their widths. Settings of winycg/CIRKD. The recipe adds
    ``SKDPixel`` (weight 1); its memory terms are not here.

    The number of operations grows with (N m)^2; memory is bounded by computing in parts. Set
    ``pool`` for maps of more than some 4,000 cells.

    Args:
        tau (float): temperature of the similarities.
        pool (int): side of the windows that are averaged before; 1 for none. CIRKDV2 takes 4
            for maps of 256 cells a side.
        student, teacher, weight, teacher_name, resize, level_map: see PairObjective.

    Raises:
        ValueError: temperature not above 0; a pool below 1; models without a decode head.
    """

    adapts_width = False
    families = ('segmentor',)
    named_taps = DETECTORS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        tau: float = 0.1,
        pool: int = 1,
        resize: str | None = None,
        level_map: str | list | None = None,
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name, None, resize, level_map)
        self.tau = check_temperature('CIRKD', tau)
        self.pool = check_number('CIRKD', 'pool', pool, 1, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_features(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {'loss_batch': sum(self.compare(s, t) for s, t in self.maps(trace))}

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.pool > 1:
            kernel = tuple(min(self.pool, side) for side in student.shape[2:])
            student, teacher = (
                F.avg_pool2d(x, kernel, kernel, ceil_mode=True) for x in (student, teacher)
            )
        return cross_image_relations(student, teacher, self.tau)
