"""CIRKD: KL divergence of pixel-to-pixel similarities across the images of a batch."""

from __future__ import annotations

from itertools import count
from math import ceil, prod
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, segmentor
from mmkd.functional.relations import smooth_unit
from mmkd.functional.similarity_kl import similarity_kl
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace

#: cells of a map beyond which ``pool='auto'`` averages windows of it
MOST_CELLS = 4096


def cross_image_relations(student: Tensor, teacher: Tensor, tau: float = 0.1) -> Tensor:
    """Mean over all ordered pairs of images, an image with itself too, and over pixels.

    Args:
        student, teacher (Tensor): (N, C_s, H, W) and (N, C_t, H, W).
        tau (float): temperature.
    """
    keys = smooth_unit(student.flatten(2).mT), smooth_unit(teacher.flatten(2).mT)
    n, m = keys[0].shape[:2]
    queries = keys[0].flatten(0, 1), keys[1].flatten(0, 1)
    return similarity_kl(queries, keys, tau) / (n**2 * m)


def window(size: tuple[int, int]) -> int:
    """Side of the smallest windows of which a map (H, W) has at most :data:`MOST_CELLS`."""
    return next(k for k in count(1) if prod(ceil(side / k) for side in size) <= MOST_CELLS)


@MODELS.register_module()
class CIRKD(PairObjective):
    """Cross-image relational knowledge distillation, the mini-batch term.

    Yang et al., CVPR 2022, between pixels of the local batch, by default in the features
    before the classifier, whatever their widths. Settings of winycg/CIRKD. The recipe adds
    ``SKDPixel`` (weight 1); its memory terms are not here.

    The number of operations grows with the square of the cells of a
    batch; memory does not, because similarities are computed in parts.

    Args:
        tau (float): temperature of the similarities.
        pool (int | str): side of the windows that are averaged before; 1 for none. ``'auto'``: the
            smallest that leaves at most 4,096 cells a map, which is 1 for a crop of 512 pixels
            at stride 8. CIRKDV2 takes 4 for maps of 256 cells a side.
        student, teacher, weight, teacher_name, learner, resize, level_map: see PairObjective.

    Raises:
        ValueError: temperature not above 0; a pool below 1; models without a decode head.
    """

    adapts_width = False
    scheduled = ('tau',)
    families = ('segmentor',)
    named_taps = DETECTORS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        tau: float = 0.1,
        pool: int | str = 'auto',
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, resize, level_map, learner=learner
        )
        self.tau = check_temperature('CIRKD', tau)
        if pool != 'auto':
            pool = check_number('CIRKD', "pool (if not 'auto')", pool, 1, whole=True)
        self.pool = pool

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_features(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {'loss_batch': sum(self.compare(s, t) for s, t in self.maps(trace))}

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        side = window(student.shape[2:]) if self.pool == 'auto' else int(self.pool)
        if side > 1:
            kernel = tuple(min(side, most) for most in student.shape[2:])
            student, teacher = (
                F.avg_pool2d(x, kernel, kernel, ceil_mode=True) for x in (student, teacher)
            )
        return cross_image_relations(student, teacher, self.tau)
