"""FBKD: attention-guided feature distance, attention maps, and non-local relations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmkd.adapters.context import NonLocal
from mmkd.families import DETECTORS, is_two_stage
from mmkd.families.pyramid import bind_pyramid, check_maps
from mmkd.functional.attention import softmax_attention, spatial_attention
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

STAGES = ('two_stage', 'one_stage')
_NAMES = ('alpha', 'beta', 'gamma', 'tau', 'use_channel_mask', 'signed_mean')
PRESETS = {
    'two_stage_code': (7e-5, 4e-3, 7e-5, 0.5, False, True),
    'two_stage_paper': (7e-5, 4e-3, 7e-5, 0.1, True, False),
    'one_stage_code': (4.2e-4, 2.4e-2, 4.2e-4, 0.1, True, True),
    'one_stage_paper': (4e-4, 2e-2, 4e-4, 0.5, True, False),
}


def norm(difference: Tensor, per_image: bool = False) -> Tensor:
    """Euclidean length over the batch, or the mean of each image's; the gradient at 0 is 0."""
    if per_image:
        return torch.linalg.vector_norm(difference.flatten(1), dim=1).mean()
    return torch.linalg.vector_norm(difference)


def distance(
    first: Tensor, second: Tensor, per_image: bool = False, factors: Sequence[Tensor] = ()
) -> Tensor:
    """:func:`norm` of the difference of two maps (N, C, H, W), in as few passes as possible.

    Args:
        factors (Sequence[Tensor]): constants of the difference, each of a shape that expands to it.
    """
    return _Distance.apply(first, second, per_image, *factors)


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, per_image: bool, *factors: Tensor
    ) -> Tensor:
        difference = first - second
        for factor in factors:
            difference *= factor
        dims = (1, 2, 3) if per_image else None
        length = torch.linalg.vector_norm(difference, dim=dims, keepdim=per_image)
        ctx.save_for_backward(difference, length, *factors)
        return length.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        difference, length, *factors = ctx.saved_tensors
        scale = torch.where(length > 0, gradient / (length * length.numel()), 0.0)
        for factor in factors:
            scale = scale * factor
        found = difference * scale
        first, second = ctx.needs_input_grad[:2]
        return found if first else None, -found if second else None, *[None] * (1 + len(factors))


@torch.no_grad()
def attention_masks(
    student: Tensor, teacher: Tensor, tau: float, use_channel_mask: bool
) -> tuple[Tensor, Tensor | None]:
    """Mean attention of both sides, (N, H, W) and (N, C_t); the teacher's where widths differ."""
    if not use_channel_mask:
        return (spatial_attention(student, tau) + spatial_attention(teacher, tau)) / 2, None
    spatial_s, channel_s = softmax_attention(student, tau)
    spatial_t, channel_t = softmax_attention(teacher, tau)
    spatial = (spatial_s + spatial_t) / 2
    same = channel_s.shape == channel_t.shape
    return spatial, (channel_s + channel_t) / 2 if same else channel_t


class Connectors(nn.Module):
    """Modules of one level: four adapters C_s -> C_t and a non-local block for each side."""

    def __init__(self, student: int, teacher: int, shrink: int, pool: int) -> None:
        super().__init__()
        self.feature, self.relation = (nn.Conv2d(student, teacher, 1) for _ in range(2))
        self.channel = nn.Linear(student, teacher)
        self.spatial = nn.Conv2d(1, 1, 3, padding=1)
        self.student = NonLocal(student, max(student // shrink, 1), pool)
        self.target = NonLocal(teacher, max(teacher // shrink, 1), pool)


@MODELS.register_module()
class FBKD(PairObjective):
    """Improve object detection with feature-based knowledge distillation.

    Zhang and Ma, ICLR 2021: ``alpha * L_AM + beta * L_AT + gamma * L_NLD``, each a Euclidean norm
    over the batch of one level, summed over levels; L_AT has a channel and a spatial part. Adapters
    are used at equal widths, too. Compared with public forks of the authors' code and with
    open-mmlab/mmrazor, whose non-local block pools once more.

    Norms grow with the root of the batch size, and the published factors with them; see
    ``per_image``. Without taps: the whole neck.

    Args:
        preset (str | None): published settings of all options below, for ``'two_stage'`` or
            ``'one_stage'`` detectors; ``None`` takes those of the student's family.
        variant (str): the settings of the released ``'code'`` or of the ``'paper'``.
        alpha, beta, gamma (float | None): factors of the terms; ``None`` is the preset's.
        tau (float | None): temperature of the attention; ``None`` is the preset's.
        use_channel_mask (bool | None): L_AM is weighted by channel attention as well. Channels of
            two networks need not correspond.
        signed_mean (bool | None): L_AT compares means, as the code does, or means of absolute
            values, as the paper writes.
        pools (tuple[int, ...]): windows of the non-local blocks' max-pooling, from the finest level
            on; the last one holds for all further levels.
        shrinks (tuple[int, ...]): divisor of the input's width that gives a non-local block's, by
            level as above.
        per_image (bool): average norms of single images. No published code does.
        student, teacher, weight, teacher_name, learner, resize, level_map, in_channels,
            out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; a model that is no detector.
    """

    term_factors = {
        'loss_feature': 'alpha',
        'loss_channel_attention': 'beta',
        'loss_spatial_attention': 'beta',
        'loss_relation': 'gamma',
    }
    adapts_width = False
    scheduled = ('alpha', 'beta', 'gamma', 'tau')
    families = DETECTORS
    zero_at_equality = False

    def __init__(
        self,
        student: Taps = None,
        teacher: Taps = None,
        weight: Any = 1.0,
        teacher_name: str | list[str] | None = None,
        preset: str | None = None,
        variant: str = 'code',
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        tau: float | None = None,
        use_channel_mask: bool | None = None,
        signed_mean: bool | None = None,
        pools: Sequence[int] = (8, 4, 2),
        shrinks: Sequence[int] = (4, 4, 2),
        per_image: bool = False,
        resize: str | None = None,
        level_map: str | list | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
        learner: str = 'student',
    ) -> None:
        widths = in_channels, out_channels
        super().__init__(
            student,
            teacher,
            weight,
            teacher_name,
            None,
            resize,
            level_map,
            *widths,
            learner=learner,
        )
        self.preset = check_choice('FBKD', 'preset', preset, (None, *STAGES))
        self.variant = check_choice('FBKD', 'variant', variant, ('code', 'paper'))
        for name, factor in (('alpha', alpha), ('beta', beta), ('gamma', gamma)):
            check_number('FBKD', name, factor, 0, optional=True)
        tau = check_temperature('FBKD', tau, optional=True)
        given = (alpha, beta, gamma, tau, use_channel_mask, signed_mean)
        self.given = {k: v for k, v in zip(_NAMES, given, strict=True) if v is not None}
        self.pools, self.shrinks = (
            tuple(check_number('FBKD', f'each of {name}', value, 1, whole=True) for value in values)
            for name, values in (('pools', pools), ('shrinks', shrinks))
        )
        self.per_image = per_image
        self.connectors = nn.ModuleDict()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        bind_pyramid(self, student, teacher)
        stages = self.preset or STAGES[not is_two_stage(student)]
        preset = dict(zip(_NAMES, PRESETS[f'{stages}_{self.variant}'], strict=True))
        chosen = [{**preset, **self.given}[name] for name in _NAMES]
        self.alpha, self.beta, self.gamma, self.tau, *switches = chosen
        self.use_channel_mask, self.signed_mean = switches

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if student is None or teacher is None:
            student, teacher = self._typed_levels()
        check_maps('FBKD', student, teacher)
        super().setup(student, teacher)
        finest = sorted({student[i].stride or 0 for i, _ in self.pairs})
        for k, (i, j) in enumerate(self.pairs):
            rank = finest.index(student[i].stride or 0)
            own = [values[min(rank, len(values) - 1)] for values in (self.shrinks, self.pools)]
            self.connectors[f'{k}'] = Connectors(student[i].channels, teacher[j].channels, *own)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        levels = [
            self.level_terms(s, t, self.connectors[f'{k}'])
            for k, (s, t) in enumerate(self.maps(trace))
        ]
        features, channels, places, relations = (sum(term) for term in zip(*levels, strict=True))
        return {
            'loss_feature': self.alpha * features,
            'loss_channel_attention': self.beta * channels,
            'loss_spatial_attention': self.beta * places,
            'loss_relation': self.gamma * relations,
        }

    def level_terms(
        self, student: Tensor, teacher: Tensor, connect: Connectors
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """L_AM, both parts of L_AT and L_NLD of (N, C_s, H, W) and (N, C_t, H, W), no factors."""
        spatial, channel = attention_masks(student, teacher, self.tau, self.use_channel_mask)
        # The masks weight the square, so their roots weight the difference.
        masks = [spatial.sqrt()[:, None]]
        if channel is not None:
            masks.append(channel.sqrt()[..., None, None])
        feature = distance(connect.feature(student), teacher, self.per_image, masks)
        own = connect.relation(connect.student(student))
        relation = distance(own, connect.target(teacher), self.per_image)
        if not self.signed_mean:
            student, teacher = student.abs(), teacher.abs()
        # Sums, since the gradient of a mean is a whole map of one number.
        (channels_s, places_s), (channels_t, places_t) = (
            (x.sum((2, 3)) / x[0, 0].numel(), x.sum(1, True) / x.shape[1])
            for x in (student, teacher)
        )
        channels = norm(channels_t - connect.channel(channels_s), self.per_image)
        places = norm(places_t - connect.spatial(places_s), self.per_image)
        return feature, channels, places, relation

    def describe(self) -> list[str]:
        lines = super().describe()
        connectors = self.connectors.values()
        return [
            f'{line.partition(":")[0]}: {c.feature.in_channels} -> {c.feature.out_channels} '
            f'channels, non-local blocks pool {c.student.pool}'
            for line, c in zip(lines, connectors, strict=True)
        ]

    def views(self, trace: Trace) -> list[View]:
        """Spatial attention of both sides, and their mean, which weights the features."""
        views = []
        for pair in self.maps(trace):
            for side, x in zip(('student', 'teacher'), pair, strict=True):
                shown = softmax_attention(x, self.tau)[0]
                views.append(View('attention', shown, side=side, unit='× uniform', scale=2))
            mean = attention_masks(*pair, self.tau, False)[0]
            views.append(View('mean attention', mean, unit='× uniform', scale=2))
        return views
