"""AT: distance between spatial attention maps, the energy of features summed over channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import DETECTORS, family_of, segmentor
from mmkd.families.pyramid import pyramid_of
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import View

VARIANTS = ('code', 'sum', 'paper')
WEIGHTS = {'segmentor': 10000.0, 'classifier': 1000.0}


def attention_map(
    x: Tensor, p: float = 2, valid: Tensor | None = None, channels: str = 'sum'
) -> Tensor:
    """(N, C, H, W) -> (N, H * W): ``sum_c |x_c|^p`` over its Euclidean length; 0 stays 0.

    With ``channels='max'`` it is ``max_c |x_c|^p``.
    """
    energy = x.square() if p == 2 else x.abs().pow(p)
    energy = energy.amax(1) if channels == 'max' else energy.mean(1)
    if valid is not None:
        energy = energy * valid
    return F.normalize(energy.flatten(1), dim=1)


def attention_distance(
    student: Tensor,
    teacher: Tensor,
    p: float = 2,
    variant: str = 'code',
    valid: Tensor | None = None,
    channels: str = 'sum',
    norm: float = 2,
) -> Tensor:
    """Distance between the attention maps of (N, C_s, H, W) and (N, C_t, H, W).

    Args:
        student, teacher (Tensor): feature maps.
        p (float): exponent of the activations.
        variant (str): of q_s - q_t, the mean square over N and places (``'code'``), the squared
            length (``'sum'``) or the length (``'paper'``), mean over N.
        valid (Tensor | None): (N, H, W) bool; other places are left out.
        channels (str): ``'sum'`` or ``'max'``, see :func:`attention_map`.
        norm (float): of the length, for ``'paper'``.
    """
    s, t = (attention_map(x, p, valid, channels) for x in (student, teacher))
    difference = s - t
    if variant == 'paper':
        return difference.norm(p=norm, dim=1).mean()
    squared = difference.square()
    if variant == 'sum':
        return squared.sum(1).mean()
    return squared.mean() if valid is None else squared.sum() / valid.sum().clamp(min=1)


@MODELS.register_module()
class AT(PairObjective):
    """Attention transfer, activation based, summed over the levels tapped; widths may differ.

    Zagoruyko and Komodakis, ICLR 2017. Settings of szagoruyko/attention-transfer and, for
    segmentation, winycg/CIRKD. Without taps: a segmentor's features before the classifier, a
    detector's pyramid, a classifier's stages.

    The paper takes the length of the difference of two attention maps, its code the mean square
    over all H * W places. That divisor gives large maps little weight, so for pyramids the default
    is the squared length.

    Args:
        weight: ``'code'`` for segmentors 10,000 (CIRKD), otherwise 1,000; 1 for the other variants,
            which published work does not settle. The paper's factor 1/2 belongs to the weight.
        variant (str | None): ``'code'``, ``'sum'`` (squared length), ``'paper'`` (length). ``None``
            is ``'code'`` for segmentors and classifiers and ``'sum'`` for detectors.
        p (float): exponent of the activations, at least 1.
        channels (str): the map is the ``'sum'`` over channels (the paper's ``F_sum^p``, used in all
            its experiments) or the ``'max'`` (``F_max^p``).
        norm (float): for ``'paper'``, p of the length ``||q_s - q_t||_p``; 2 in the paper, while
            summaries of it print the p of the activations there, too.
        mask_ignore (bool): leave out cells of a segmentor with the ignored label. No published code
            does.
        ignore_index (int): the ignored label.
        student, teacher, teacher_name, learner, resize, level_map: see PairObjective.

    Raises:
        ValueError: options out of range; maps of one cell, where the loss is always 0.
    """

    rank_invariant = True
    adapts_width = False
    families = (*DETECTORS, 'segmentor', 'classifier')

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = None,
        teacher_name: str | list[str] | None = None,
        variant: str | None = None,
        p: float = 2,
        channels: str = 'sum',
        norm: float = 2,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        resize: str | None = None,
        level_map: str | list | None = None,
        learner: str = 'student',
    ) -> None:
        super().__init__(
            student, teacher, weight, teacher_name, None, resize, level_map, learner=learner
        )
        self.variant = check_choice('AT', 'variant', variant, (None, *VARIANTS))
        self.p = check_number('AT', 'the exponent p', p, 1)
        self.channels = check_choice('AT', 'channels', channels, ('sum', 'max'))
        self.norm = check_number('AT', 'norm', norm, 1)
        if norm != 2 and self.variant != 'paper':
            raise ValueError(
                f"AT: norm={norm} is that of a length, which variant='paper' takes; 'code' and "
                "'sum' square each difference."
            )
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('AT', 'ignore_index', ignore_index, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        family = family_of(student)
        self.variant = self.variant or ('code' if family in WEIGHTS else 'sum')
        default = WEIGHTS.get(family, 1000.0) if self.variant == 'code' else 1.0
        self.set_default_weight(default)
        if family == 'segmentor' and family_of(teacher) == 'segmentor':
            segmentor.bind_features(self, student, teacher)
        part = 'backbone' if family == 'classifier' else pyramid_of(student, teacher)
        default_taps = parse_taps(part)
        self.student_taps = self.student_taps or default_taps
        self.teacher_taps = self.teacher_taps or default_taps

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        for level in [*(student or []), *(teacher or [])]:
            if level.shape[1:] == (1, 1) or len(level.shape) != 3:
                raise ValueError(
                    f"AT compares spatial attention maps, but '{level.tap}' gives {level}. Tap a "
                    'feature map of more than one cell.'
                )
        super().setup(student, teacher)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        losses = []
        for s, t in self.maps(trace):
            valid = segmentor.counted_pixels(self, trace, s.shape[2:])
            options = self.p, self.variant, valid, self.channels, self.norm
            losses.append(attention_distance(s, t, *options))
        return {'loss': sum(losses)}

    def views(self, trace: Trace) -> list[View]:
        """Attention of both sides, as multiples of its mean."""
        views = []
        for pair in self.maps(trace):
            for side, x in zip(('student', 'teacher'), pair, strict=True):
                q = attention_map(x, self.p, channels=self.channels).view(len(x), *x.shape[2:])
                shown = q / q.mean((1, 2), keepdim=True).clamp(min=1e-12)
                views.append(View('attention', shown, side=side, unit='× mean', scale=2))
        return views
