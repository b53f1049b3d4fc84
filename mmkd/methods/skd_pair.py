"""SKDPair: cosine similarities between all pairs of pixels of a feature map."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import DETECTORS, segmentor
from mmkd.functional.affinity import row_gaps
from mmkd.functional.pooling import pool_nodes
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import Boxes, View

#: more nodes than this: no matrix of affinities is built
_DIRECT_NODES = 2048
_EPS = 1e-8


def unit_nodes(x: Tensor, detach_norm: bool = True) -> Tensor:
    """(N, C, H, W) -> (N, C, R): features over their length."""
    flat = x.flatten(2)
    norm = flat.norm(dim=1, keepdim=True) + _EPS
    return flat / (norm.detach() if detach_norm else norm)


def pair_wise(student: Tensor, teacher: Tensor, detach_norm: bool = True) -> Tensor:
    """``1 / (N R^2) * sum_nij (a^s_nij - a^t_nij)^2``, a the cosines of all R x R pairs of nodes.

    With many nodes by way of matrices over channels: memory grows with R, not with R^2.

    Args:
        student, teacher (Tensor): nodes (N, C_s, h, w) and (N, C_t, h, w), R = h * w.
        detach_norm (bool): lengths are constants for the gradient.
    """
    s, t = unit_nodes(student, detach_norm), unit_nodes(teacher)
    n, r = len(s), s.shape[2]
    if r <= _DIRECT_NODES:
        return (s.mT @ s - t.mT @ t).square().sum() / (n * r**2)
    return (row_gaps(s, t).sum() / (n * r**2)).to(student.dtype)


@MODELS.register_module()
class SKDPair(PairObjective):
    """Structured knowledge distillation, pair-wise term: cosines of all pairs of places.

    Liu et al., CVPR 2019 and TPAMI 2020, by default between the features before the classifier,
    whatever their widths. Settings of irfanICMLL/structure_knowledge_distillation.

    Papers and code disagree on the nodes: CVPR has every pixel (``pool=None``), TPAMI averages 2x2
    patches (``pool='avg', pool_size=2``), the code that produced the released numbers takes maxima
    over a half by a half of the map, four nodes (the default); CIRKD's takes
    ``pool='max', pool_size=2``. Memory is bounded for all: above 2,048 nodes no affinity matrix is
    built, which is exact but, with thousands of channels, slow; then pool.

    Args:
        weight: 0.5, that of the code's training script; the paper says 10.
        pool (str | None): ``'max'``, ``'avg'``, or None for every pixel.
        pool_size (int | str): side of the windows, or ``'half'``.
        detach_norm (bool): no gradient through the features' lengths, as in the code; ``False``
            is the gradient of the cosine.
        student, teacher, teacher_name, learner, resize, level_map: see PairObjective.

    Raises:
        ValueError: options out of range; models without a decode head and no taps.
    """

    default_weight = 0.5
    rank_invariant = True
    adapts_width = False
    families = ('segmentor',)
    named_taps = DETECTORS

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        pool: str | None = 'max',
        pool_size: int | str = 'half',
        detach_norm: bool = True,
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, resize, level_map, learner=learner
        )
        self.pool = check_choice('SKDPair', 'pool', pool, ('max', 'avg', None))
        if pool_size != 'half':
            name = "pool_size (if not 'half')"
            pool_size = check_number('SKDPair', name, pool_size, 1, whole=True)
        self.pool_size, self.detach_norm = pool_size, detach_norm

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_features(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {'loss': sum(self.compare(s, t) for s, t in self.maps(trace))}

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        s, t = (pool_nodes(x, self.pool, self.pool_size) for x in (student, teacher))
        return pair_wise(s, t, self.detach_norm)

    def views(self, trace: Trace) -> list[View | Boxes]:
        """Similarity, before pooling, of every place to the one in the middle."""
        height, width = trace.inputs.shape[2:]
        return self.views_at(trace, (width / 2, height / 2))

    def views_at(self, trace: Trace, point: tuple[float, float]) -> list[View | Boxes]:
        """Similarity, before pooling, of every place to the one under a pixel of the input."""
        views: list[View | Boxes] = []
        for pair in self.maps(trace):
            for side, x in zip(('student', 'teacher'), pair, strict=True):
                cells = x.shape[:1:-1]  # width and height, as in a point
                whole = trace.inputs.shape[:1:-1]
                column, row = (
                    min(max(int(at * n / size), 0), n - 1)
                    for at, n, size in zip(point, cells, whole, strict=True)
                )
                unit = unit_nodes(x).view_as(x)
                shown = (unit * unit[:, :, row, column, None, None]).sum(1).clamp(min=0)
                views.append(View('similarity to the marked place', shown, side=side, scale=1))
        x, y = point
        mark = [[image, x - 3, y - 3, x + 3, y + 3] for image in range(len(trace.inputs))]
        return [*views, Boxes('marked place', trace.inputs.new_tensor(mark))]
