"""CSCACE: channel-spatial correlation matrices, and cross entropy with an adaptive soft target."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import segmentor
from mmkd.functional.mixed_target import mixed_cross_entropy, teacher_share
from mmkd.functional.pooling import pool_nodes
from mmkd.levels import Level
from mmkd.map_sizes import RESIZE, Map, at_size, equal_size
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_factors, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Tap, Trace, parse_taps

#: more similarities of a batch than this are refused: seven such matrices are held
MOST_SIMILARITIES = 2**25
_EPS = 1e-12


def similarity(features: Tensor) -> Tensor:
    """``(f_i . f_j)^2`` of any two places, (N, C, H, W) -> (N, m, m), m = H * W.

    This equals the inner products of the map multiplied by its C circular shifts along channels,
    (m, C^2); those are never built. Features are first divided by their root mean square, image by
    image, which does not change normalised distances.
    """
    flat = features.flatten(2)
    return (flat.mT @ flat).square()


def correlation_distance(student: Tensor, teacher: Tensor, normalize: str = 'frobenius') -> Tensor:
    """Distance of the similarities of (N, C_s, H, W) and (N, C_t, H, W), mean over N.

    Args:
        normalize (str): ``'frobenius'``: squared Frobenius norm of the difference of matrices
            scaled to Frobenius norm 1; ``'row'``: mean square of the difference of matrices whose
            rows have length 1; ``'none'``: mean square.
    """
    if normalize == 'none':
        return (similarity(student) - similarity(teacher)).square().mean()
    scaled = [
        x / (x.square().mean((1, 2, 3), keepdim=True) + _EPS).sqrt() for x in (student, teacher)
    ]
    s, t = (similarity(x) for x in scaled)
    if normalize == 'row':
        return (F.normalize(s, dim=2) - F.normalize(t, dim=2)).square().mean()
    s, t = (x / (x.square().sum((1, 2), keepdim=True) + _EPS).sqrt() for x in (s, t))
    return (s - t).square().sum((1, 2)).mean()


@MODELS.register_module()
class CSCACE(Objective):
    """Channel and spatial correlation with adaptive cross entropy, for segmentors.

    Park and Heo, Sensors 2020. The publication leaves normalisation, taps, weights and the mixing
    rule open; this is an interpretation: CSC on the features before the classifier, whatever their
    widths; ACE on the logits, resized to the labels as the task's cross entropy does. ACE replaces
    the main head's cross entropy, whose class weights it shares: set
    ``task_weight={'decode.loss_ce': 0}`` in the model, or leave that out to add ACE to it.

    Args:
        normalize (str): ``'frobenius'``, ``'row'`` or ``'none'``, see
            :func:`correlation_distance`.
        pool (str | None): ``'max'`` or ``'avg'`` over windows of ``pool_size`` before CSC. Memory
            grows with the square of the number of places: pool more than 4,096 (two images on a
            GPU) or 2,896 (four).
        pool_size (int): side of the windows.
        policy (str): share of the teacher in ACE's target: ``'confidence'``, ``'correct'`` or
            ``'fixed'``, see :func:`teacher_share`.
        fixed (float): that share for ``'fixed'``, in [0, 1].
        factors (dict[str, float] | None): of the terms ``'csc'`` and ``'ace'``, where not 1; 0
            leaves one out.
        tau (float): temperature of the teacher's probabilities.
        ignore_index (int): label of pixels that ACE leaves out.
        resize (str | None): of the features, see :class:`~mmkd.objective.PairObjective`.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; the taps are
            features, then logits.

    Raises:
        ValueError: options out of range; unequal or single class count; a head that classifies
            neither pixels nor masks; other than two taps; no labels; a label out of range in the
            first batch; maps of unequal size; too many places for the memory.
    """

    needs_ground_truth = True
    zero_at_equality = False
    scheduled = ('tau',)
    over_scales = True
    families = ('segmentor',)

    def __init__(
        self,
        *taps: Taps,
        normalize: str = 'frobenius',
        pool: str | None = None,
        pool_size: int = 2,
        policy: str = 'confidence',
        fixed: float = 0.5,
        factors: Mapping[str, float] | None = None,
        tau: float = 1.0,
        ignore_index: int = 255,
        resize: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.resize = check_choice('CSCACE', 'resize', resize, RESIZE)
        name = 'CSCACE'
        self.normalize = check_choice(name, 'normalize', normalize, ('frobenius', 'row', 'none'))
        self.pool = check_choice(name, 'pool', pool, (None, 'max', 'avg'))
        self.pool_size = check_number(name, 'pool_size', pool_size, 1, whole=True)
        policies = ('confidence', 'correct', 'fixed')
        self.policy = check_choice(name, 'policy', policy, policies)
        self.fixed = check_number(name, 'the share fixed', fixed, 0, 1)
        self.factors = check_factors(name, factors, dict(csc=1.0, ace=1.0))
        self.tau = check_temperature(name, tau)
        self.ignore_index = check_number(name, 'ignore_index', ignore_index, whole=True)
        self.classes, self.align_corners = 0, False
        self.register_buffer('class_weight', None, persistent=False)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        segmentor.check_segmentors('CSCACE', student, teacher)
        self.align_corners = bool(getattr(student, 'align_corners', False))
        self.classes = segmentor.classes(student)
        weights = segmentor.class_weights(student)
        self.class_weight = None if weights is None else torch.tensor(weights)
        self.student_taps = self.student_taps or _default_taps(student)
        self.teacher_taps = self.teacher_taps or _default_taps(teacher)
        for side, taps in (('student', self.student_taps), ('teacher', self.teacher_taps)):
            if len(taps) != 2:
                raise ValueError(
                    f'CSCACE takes two taps of the {side}, features and logits, found '
                    f'{", ".join(map(str, taps))}.'
                )
        segmentor.check_logits(self, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if self.factors['csc']:
            logits.check_strides(self, 'pixels', student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        own, own_z = (trace.student.maps(tap)[0] for tap in self.student_taps)
        wanted, wanted_z = (trace.teacher.maps(tap)[0] for tap in self.teacher_taps)
        result = {}
        if self.factors['csc']:
            align = self.align_corners
            pair = equal_size('CSCACE', own, wanted.detach(), trace, self.resize, align)
            result['loss_csc'] = self.factors['csc'] * self._correlate(*pair)
        if self.factors['ace']:
            adaptive = self._adaptive(own_z, wanted_z.detach(), trace)
            result['loss_ace'] = self.factors['ace'] * adaptive
        return result

    def _correlate(self, student: Tensor, teacher: Tensor) -> Tensor:
        pair = [pool_nodes(x, self.pool, self.pool_size) for x in (student, teacher)]
        n, nodes = len(student), pair[0][0, 0].numel()
        excess = n * nodes**2 / MOST_SIMILARITIES
        if excess > 1:
            size = ceil((self.pool_size if self.pool else 1) * excess**0.25)
            raise ValueError(
                f'CSCACE: {n} maps of {nodes} places have {n} x {nodes} x {nodes} similarities, '
                f"which takes too much memory; set pool='avg', pool_size={size}."
            )
        return correlation_distance(*pair, self.normalize)

    def _adaptive(self, student: Map, teacher: Map, trace: Trace) -> Tensor:
        labels = segmentor.known_labels(self, trace.samples, self.classes, self.ignore_index)
        own, wanted = (at_size(z, labels.shape[1:], self.align_corners) for z in (student, teacher))
        probabilities = (wanted / self.tau).softmax(1)
        alpha = teacher_share(probabilities, labels.clamp(min=0), self.policy, self.fixed)
        return mixed_cross_entropy(own, probabilities, labels, alpha, self.class_weight)


def _default_taps(model: nn.Module) -> tuple[Tap, ...]:
    return parse_taps([segmentor.feature_tap(model), segmentor.logits_tap(model)])
