"""SKD: class probabilities of pixels, and how similar any two places of a map are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import segmentor
from mmkd.functional import check_choice, check_temperature, weight_or
from mmkd.functional.channel_free import channel_free
from mmkd.functional.pooling import pool_nodes
from mmkd.levels import Level
from mmkd.methods.kd import REDUCTIONS, soft_kl
from mmkd.objective import PairObjective, Taps
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.visualization.view import Boxes, View

#: more nodes than this: affinities are compared through their Gram matrices
_DIRECT_NODES = 2048
_EPS = 1e-8


def pixel_wise_kl(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    reduction: str = 'per_pixel',
    valid: Tensor | None = None,
) -> Tensor:
    """``tau^2 * sum over pixels of KL(softmax_K(T / tau) || softmax_K(S / tau))``, divided.

    Args:
        student, teacher (Tensor): logits (N, K, H, W).
        tau (float): temperature.
        reduction (str): divides by N * H * W (``'per_pixel'``), H * W (``'skd_sum'``) or
            N * K * H * W (``'element_mean'``).
        valid (Tensor | None): (N, H, W) bool; other pixels are neither summed nor counted.
    """
    n, k, h, w = student.shape
    kl = soft_kl(student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1), tau)
    count: Any = n * h * w
    if valid is not None:
        kl, count = kl * valid, valid.sum().clamp(min=1)
    divisor = {'per_pixel': count, 'skd_sum': count / n, 'element_mean': count * k}
    return kl.sum() / divisor[reduction]


def unit_nodes(x: Tensor, detach_norm: bool = True) -> Tensor:
    """(N, C, H, W) -> (N, C, R): features over their length."""
    flat = x.flatten(2)
    norm = flat.norm(dim=1, keepdim=True) + _EPS
    return flat / (norm.detach() if detach_norm else norm)


def pair_wise(student: Tensor, teacher: Tensor, detach_norm: bool = True) -> Tensor:
    """``1 / (N R^2) * sum_nij (a^s_nij - a^t_nij)^2``, a the cosines of all R x R pairs of nodes.

    With many nodes the equal ``|F_s F_s'|^2 + |F_t F_t'|^2 - 2 |F_s F_t'|^2`` over channels, in
    float64 because its terms cancel: memory grows with R, not with R^2.

    Args:
        student, teacher (Tensor): nodes (N, C_s, h, w) and (N, C_t, h, w), R = h * w.
        detach_norm (bool): lengths are constants for the gradient.
    """
    s, t = unit_nodes(student, detach_norm), unit_nodes(teacher)
    n, r = len(s), s.shape[2]
    if r <= _DIRECT_NODES:
        return (s.mT @ s - t.mT @ t).square().sum() / (n * r**2)
    s, t = s.double(), t.double()
    own = (s @ s.mT).square().sum() + (t @ t.mT).square().sum()
    return ((own - 2 * (s @ t.mT).square().sum()) / (n * r**2)).to(student.dtype)


@MODELS.register_module()
class SKDPixel(PairObjective):
    """Structured knowledge distillation, pixel-wise term, on a segmentor's logits before resizing.

    Liu et al., CVPR 2019 and TPAMI 2020, with the teacher as target. The authors'
    code (irfanICMLL/structure_knowledge_distillation) takes the cross entropy, which is more by
    the teacher's entropy, a constant, and has the same gradient.

    Args:
        reduction (str): ``'per_pixel'`` is the mean over N * h * w; ``'skd_sum'`` divides by h * w
            only, so it grows with the batch of a GPU (SKD's code); ``'element_mean'`` divides by
            N * K * h * w (IFVD's code).
        weight: by default the published one: 10 for ``'skd_sum'`` (batch 8 on one GPU) and for
            ``'element_mean'``, 1 for ``'per_pixel'`` (CIRKD's code).
        tau (float): temperature; the loss is multiplied by its square.
        mask_ignore (bool): leave out pixels whose label is to be ignored. SKD's code does not.
        ignore_index (int): that label.
        student, teacher, teacher_name, resize: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: temperature not above 0; unequal or single class count; a head without
            ``conv_seg``; maps of unequal stride without ``resize``.
    """

    rank_invariant = True
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        tau: float = 1.0,
        reduction: str = 'per_pixel',
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
    ) -> None:
        self_weight = 1.0 if reduction == 'per_pixel' else 10.0
        weight = weight_or(self_weight, weight)
        super().__init__(student, teacher, weight, teacher_name, adapt=None, resize=resize)
        self.tau = check_temperature('SKDPixel', tau)
        self.reduction = check_choice('SKDPixel', 'reduction', reduction, REDUCTIONS)
        self.mask_ignore, self.ignore_index = mask_ignore, ignore_index

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_logits(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student = channel_free(student, self.student_taps)
        super().setup(student, channel_free(teacher, self.teacher_taps))

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = []
        for s, t in self.tensor_pairs(trace):
            valid = None
            if self.mask_ignore:
                valid = segmentor.valid_pixels(trace.samples, s.shape[2:], self.ignore_index)
            losses.append(pixel_wise_kl(s, t, self.tau, self.reduction, valid))
        return {'loss': sum(losses)}

    def views(self, trace: Trace) -> list[View]:
        """What both predict, where that differs, and by how much."""
        views = []
        for pair in self.tensor_pairs(trace):
            classes = [x.argmax(1) for x in pair]
            for side, found in zip(('student', 'teacher'), classes, strict=True):
                views.append(View('predicted class', found, kind='classes', side=side))
            views.append(View('predictions differ', classes[0] != classes[1], kind='mask'))
            kl = soft_kl(*(x.permute(0, 2, 3, 1) for x in pair), self.tau)
            views.append(View('KL of student from teacher', kl, unit='nats'))
        return views


@MODELS.register_module()
class SKDPair(PairObjective):
    """Structured knowledge distillation, pair-wise term: cosines of all pairs of places.

    Liu et al., CVPR 2019 and TPAMI 2020, by default between the features before the classifier,
    whatever their widths. Settings of irfanICMLL/structure_knowledge_distillation.

    The texts and the code disagree on nodes: CVPR has every pixel (``pool=None``), TPAMI averages
    2x2 patches (``pool='avg', pool_size=2``), the code that produced the released numbers takes
    maxima over a half by a half of the map, four nodes (the default); CIRKD's takes
    ``pool='max', pool_size=2``. Memory is bounded for all: above 2,048 nodes no affinity matrix is
    built, which is exact but, with thousands of channels, slow; then pool.

    Args:
        weight: 0.5, that of the code's training script; the paper says 10.
        pool (str | None): ``'max'``, ``'avg'``, or None for every pixel.
        pool_size (int | str): side of the windows, or ``'half'``.
        detach_norm (bool): no gradient through the features' lengths, as in the code; ``False``
            is the gradient of the cosine.
        student, teacher, teacher_name, resize, level_map: see PairObjective.

    Raises:
        ValueError: options out of range; models without a decode head and no taps.
    """

    default_weight = 0.5
    rank_invariant = True
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | None = None,
        pool: str | None = 'max',
        pool_size: int | str = 'half',
        detach_norm: bool = True,
        resize: str | None = None,
        level_map: str | list | None = None,
    ) -> None:
        super().__init__(student, teacher, weight, teacher_name, None, resize, level_map)
        self.pool = check_choice('SKDPair', 'pool', pool, ('max', 'avg', None))
        if pool_size != 'half' and (type(pool_size) is not int or pool_size < 1):
            raise ValueError(
                f"SKDPair: pool_size must be 'half' or a whole number above 0, found {pool_size!r}."
            )
        self.pool_size, self.detach_norm = pool_size, detach_norm

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_features(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student = channel_free(student, self.student_taps)
        super().setup(student, channel_free(teacher, self.teacher_taps))

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
