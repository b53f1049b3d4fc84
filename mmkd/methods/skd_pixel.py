"""SKDPixel: KL divergence of the class probabilities of every pixel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.families import segmentor
from mmkd.functional.logit_distances import PIXEL_REDUCTIONS, pixel_wise_kl, soft_kl
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View


@MODELS.register_module()
class SKDPixel(PairObjective):
    """Structured knowledge distillation, pixel-wise term, on a segmentor's logits before resizing.

    Liu et al., CVPR 2019 and TPAMI 2020, with the teacher as target. The authors' code
    (irfanICMLL/structure_knowledge_distillation) takes the cross entropy, which is larger by the
    teacher's entropy, a constant, and has the same gradient.

    Args:
        reduction (str): ``'per_pixel'`` is the mean over N * h * w; ``'skd_sum'`` divides by h * w
            only, so it grows with the batch of a GPU (SKD's code); ``'element_mean'`` divides by
            N * K * h * w (IFVD's code).
        weight: by default the published one: 10 for ``'skd_sum'`` (batch 8 on one GPU) and for
            ``'element_mean'``, 1 for ``'per_pixel'`` (CIRKD's code).
        tau (float): temperature; the loss is multiplied by its square.
        mask_ignore (bool): leave out pixels with the ignored label. SKD's code does not.
        ignore_index (int): the ignored label.
        student, teacher, teacher_name, learner, resize: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: temperature not above 0; unequal or single class count; a head that classifies
            neither pixels nor masks; maps of unequal stride without ``resize``.
    """

    rank_invariant = True
    adapts_width = False
    scheduled = ('tau',)
    families = ('segmentor',)

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        tau: float = 1.0,
        reduction: str = 'per_pixel',
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, adapt=None, resize=resize, learner=learner
        )
        self.tau = check_temperature('SKDPixel', tau)
        self.reduction = check_choice('SKDPixel', 'reduction', reduction, PIXEL_REDUCTIONS)
        self.set_default_weight(1.0 if self.reduction == 'per_pixel' else 10.0)
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('SKDPixel', 'ignore_index', ignore_index, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        segmentor.bind_logits(self, student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = []
        for s, t in self.tensor_pairs(trace):
            valid = segmentor.counted_pixels(self, trace, s.shape[2:])
            losses.append(pixel_wise_kl(s, t, self.tau, self.reduction, valid))
        return {'loss': sum(losses)}

    def views(self, trace: Trace) -> list[View]:
        """Predicted classes of both sides, where they differ, and the KL divergence."""
        views = []
        for pair in self.tensor_pairs(trace):
            classes = [x.argmax(1) for x in pair]
            for side, found in zip(('student', 'teacher'), classes, strict=True):
                views.append(View('predicted class', found, kind='classes', side=side))
            views.append(View('predictions differ', classes[0] != classes[1], kind='mask'))
            kl = soft_kl(*(x.permute(0, 2, 3, 1) for x in pair), self.tau)
            views.append(View('KL of student from teacher', kl, unit='nats'))
        return views
