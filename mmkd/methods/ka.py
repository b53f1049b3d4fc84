"""KA: features regress the latent code of an autoencoder of the teacher's, and its affinities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.adapters.autoencoder import AutoEncoder
from mmkd.families import segmentor
from mmkd.functional.affinity import row_gaps
from mmkd.functional.resize import resize
from mmkd.levels import Level, seen_by_teacher
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps

PHASES = ('student', 'autoencoder')
_EPS = 1e-6


def unit_places(x: Tensor, q: float = 2, scope: str = 'position') -> Tensor:
    """(N, C, H, W) over its q-norm, over channels at each place or over an image (``'sample'``)."""
    dims = (1,) if scope == 'position' else (1, 2, 3)
    return x / (x.norm(p=q, dim=dims, keepdim=True) + _EPS)


def adaptation(
    student: Tensor, code: Tensor, p: float = 1, q: float = 2, scope: str = 'position'
) -> Tensor:
    """p-norm over channels of the difference of unit maps (N, C, H, W), mean over N and places.

    With ``scope='sample'`` the mean over all elements for p = 1, else the p-norm of an image.
    """
    difference = unit_places(student, q, scope) - unit_places(code, q, scope)
    if scope == 'position':
        return difference.norm(p=p, dim=1).mean()
    if p == 1:
        return difference.abs().mean()
    return difference.flatten(1).norm(p=p, dim=1).mean()


def affinity_error(student: Tensor, code: Tensor, reduction: str = 'row_l2') -> Tensor:
    """Between the m x m cosines of places of two maps (N, C, H, W), m = H * W.

    Args:
        reduction (str): ``'row_l2'``: length of each row of the difference, mean over N and rows;
            ``'mse'``: mean square, SKD's pair-wise term without pooling.
    """
    gaps = row_gaps(*(unit_places(x).flatten(2) for x in (student, code)))
    if reduction == 'mse':
        return (gaps.mean() / gaps.shape[1]).to(student.dtype)
    return (gaps + 1e-12).sqrt().mean().to(student.dtype)


@MODELS.register_module()
class KA(Objective):
    """Knowledge adaptation for efficient semantic segmentation.

    He et al., CVPR 2019, eqs. 1-6. First an auto-encoder learns to compress the teacher's features
    before the classifier; then, its encoder frozen, the student's last backbone map is adapted to
    the code and to the code's affinities. There is no public code: norms, widths and reductions
    are an interpretation. Two phases::

        mmkd train configs/chains/ka_pspnet_cityscapes.py  # phase='autoencoder', then 'student'

    Args:
        phase (str): ``'autoencoder'`` trains the auto-encoder alone; ``'student'`` the student.
        latent (int | None): width of the code; ``None`` is an eighth of the teacher's, at least 32.
        factors (dict[str, float] | None): of the terms ``'adaptation'`` and ``'affinity'`` (beta
            and gamma), where not 50 and 1; 0 leaves one out.
        p, q (float): see :func:`adaptation`.
        scope (str): features are normalised at each ``'position'`` or over a ``'sample'``.
        reduction (str): of affinities, ``'row_l2'`` or ``'mse'``.
        share (bool): one adapter for both terms.
        sparsity (float): factor of the code's mean absolute value in the first phase.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; models without a decode head; maps whose strides differ
            by no power of two up to 8; a student's run that does not start from a trained
            auto-encoder.
    """

    own_losses = ('loss_reconstruction', 'loss_sparsity')
    zero_at_equality = False
    over_scales = True
    families = ('segmentor',)

    def __init__(
        self,
        *taps: Taps,
        phase: str = 'student',
        latent: int | None = None,
        factors: Mapping[str, float] | None = None,
        p: float = 1,
        q: float = 2,
        scope: str = 'position',
        reduction: str = 'row_l2',
        share: bool = False,
        sparsity: float = 1e-6,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.phase = check_choice('KA', 'phase', phase, PHASES)
        self.scope = check_choice('KA', 'scope', scope, ('position', 'sample'))
        self.reduction = check_choice('KA', 'reduction', reduction, ('row_l2', 'mse'))
        self.factors = check_factors('KA', factors, dict(adaptation=50.0, affinity=1.0))
        self.p, self.q = check_number('KA', 'p', p, 1), check_number('KA', 'q', q, 1)
        self.latent = check_number('KA', 'latent', latent, 1, whole=True, optional=True)
        self.share = share
        self.sparsity = check_number('KA', 'sparsity', sparsity, 0)
        #: steps for which the auto-encoder was trained
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        segmentor.check_segmentors('KA', student, teacher)
        self.student_taps = self.student_taps or parse_taps(segmentor.encoder_tap(student))
        self.teacher_taps = self.teacher_taps or parse_taps(segmentor.feature_tap(teacher))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not student or not teacher or len(student) != 1 or len(teacher) != 1:
            raise ValueError('KA compares one map of each network; name one tap of each.')
        wide = teacher[0].channels
        latent = int(self.latent or max(wide // 8, 32))
        (own,) = seen_by_teacher(student, self.image_scale)
        self.autoencoder = AutoEncoder(wide, latent, _shrink(own, teacher[0]))
        if self.phase == 'autoencoder':
            self.student_taps = ()  # only its stride was needed
            return
        del self.autoencoder.decoder
        self.autoencoder.requires_grad_(False)
        narrow = student[0].channels
        to_code = nn.Conv2d(narrow, latent, 3, padding=1, bias=False)
        self.adapter = nn.Sequential(to_code, nn.BatchNorm2d(latent), nn.ReLU())
        if self.factors['affinity'] and not self.share:
            self.affinity_adapter = nn.Conv2d(narrow, latent, 3, padding=1)
        if not self.factors['adaptation'] and not self.share:
            del self.adapter
        self.train(self.training)

    def train(self, mode: bool = True) -> KA:
        super().train(mode)
        if self.phase == 'student' and hasattr(self, 'autoencoder'):
            self.autoencoder.eval()
        return self

    def check_dataset(self, dataset: Any) -> None:
        if self.phase == 'student' and not int(self.steps):
            raise ValueError(
                "KA: the auto-encoder was never trained. Train it first with phase='autoencoder', "
                'and start this run from its checkpoint: a chain does both (docs/chains.md).'
            )

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        code = self.autoencoder.encoder(teacher)
        if self.phase == 'autoencoder':
            self.steps += self.training
            found = self.autoencoder.reconstruct(teacher, code)
            return {
                'loss_reconstruction': F.mse_loss(found, teacher),
                'loss_sparsity': self.sparsity * code.abs().mean(),
            }
        return self._adapt(trace.student[self.student_taps[0]][0], code)

    def _adapt(self, student: Tensor, code: Tensor) -> dict[str, Tensor]:
        result = {}
        if self.factors['adaptation']:
            found = resize(self.adapter(student), code.shape[2:])
            distance = adaptation(found, code, self.p, self.q, self.scope)
            result['loss_adaptation'] = self.factors['adaptation'] * distance
        if self.factors['affinity']:
            adapter = self.adapter if self.share else self.affinity_adapter
            error = affinity_error(resize(adapter(student), code.shape[2:]), code, self.reduction)
            result['loss_affinity'] = self.factors['affinity'] * error
        return result


def _shrink(student: Level, teacher: Level) -> int:
    """Ratio of the student's stride to the teacher's: 1, 2, 4 or 8."""
    strides = [level.stride or 1 for level in (student, teacher)]
    ratio = strides[0] / strides[1]
    if ratio not in (1, 2, 4, 8):
        raise ValueError(
            f"KA: the student's map has stride {strides[0]} and the teacher's {strides[1]}; the "
            "code can be 1, 2, 4 or 8 times as coarse as the teacher's map. Tap another stage."
        )
    return int(ratio)
