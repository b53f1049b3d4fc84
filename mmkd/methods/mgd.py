"""MGD: masked student features, from which a small conv block generates the teacher's features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, family_of, is_two_stage, segmentor
from mmkd.families.pyramid import bind_pyramid, check_maps
from mmkd.generators import step_generator
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.tap import Trace
from mmkd.view import View

#: weight (alpha) and share of masked cells (lambda) by family of the student
DEFAULTS = {'two_stage': (5e-7, 0.45), 'segmentor': (2e-5, 0.75)}
ONE_STAGE = (2e-5, 0.65)


def draw_mask(shape: tuple[int, ...], ratio: float, generator: torch.Generator) -> Tensor:
    """1 with probability ``1 - ratio`` and 0 otherwise, from a private random stream."""
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return (drawn < 1 - ratio).float()


def generation_block(channels: int) -> nn.Sequential:
    """(N, C, H, W) -> (N, C, H, W): 3x3 convolution, ReLU, 3x3 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


@MODELS.register_module()
class MGD(PairObjective):
    """Masked generative distillation: ``1 / N * sum (G(mask * phi(S)) - T)^2``, summed over levels.

    Yang et al., ECCV 2022. Compared with yzd-v/MGD and, for ``mask='channel'``, with
    open-mmlab/mmrazor. G is trained with the student and not part of it at inference; the loss is
    not 0 at equality.

    Without taps: the first four maps of a two-stage detector's neck, the whole neck of other
    detectors, the last stage of a segmentor's backbone, where the published recipes add CWD on the
    logits. Published one-stage students begin with the teacher's neck and head, as in
    ``mgd_retinanet_r101_r50.py``.

    G grows with the square of the teacher's width: at the 2,048 channels of a ResNet-101, which the
    published segmentation configs tap, it has 75.5 million parameters and takes most of a step's
    time and memory. ``student='decode_head.bottleneck'``, 512 channels in PSPNet, takes a sixteenth
    of that; its weight then has to be tuned.

    Args:
        weight: 5e-7 for two-stage students, otherwise 2e-5.
        mask_ratio (float | None): share of masked cells, in [0, 1]. ``None``: 0.45 for two-stage
            students, 0.75 for segmentors, otherwise 0.65.
        mask (str): masks places of all channels (``'spatial'``) or whole channels (``'channel'``).
        seed (int): of the masks, which depend on it, on the iteration and on the rank only.
        mask_ignore (bool): leave out cells of a segmentor with the ignored label. No published code
            does.
        ignore_index (int): the ignored label.
        student, teacher, teacher_name, adapt, resize, level_map, in_channels, out_channels: see
            :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; classifiers.
    """

    families = (*DETECTORS, 'segmentor')
    zero_at_equality = False

    def __init__(
        self,
        *taps: Taps,
        mask_ratio: float | None = None,
        mask: str = 'spatial',
        seed: int = 0,
        mask_ignore: bool = False,
        ignore_index: int = 255,
        **pair: Any,
    ) -> None:
        super().__init__(*taps, **pair)
        self.mask_ratio = check_number('MGD', 'mask_ratio', mask_ratio, 0, 1, optional=True)
        self.seed = check_number('MGD', 'seed', seed, 0, whole=True)
        self.mask = check_choice('MGD', 'mask', mask, ('spatial', 'channel'))
        self.mask_ignore = mask_ignore
        self.ignore_index = check_number('MGD', 'ignore_index', ignore_index, whole=True)
        self.generators = nn.ModuleDict()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        assert teacher is not None
        family = 'two_stage' if is_two_stage(student) else family_of(student)
        if family == 'segmentor':
            segmentor.bind_encoders(self, student, teacher)
        bind_pyramid(self, student, teacher, levels=4 if family == 'two_stage' else None)
        weight, ratio = DEFAULTS.get(family, ONE_STAGE)
        self.set_default_weight(weight)
        self.mask_ratio = ratio if self.mask_ratio is None else self.mask_ratio

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if student is None or teacher is None:
            student, teacher = self._typed_levels()
        check_maps('MGD', student, teacher)
        super().setup(student, teacher)
        for k, (_, j) in enumerate(self.pairs):
            self.generators[f'{k}'] = generation_block(teacher[j].channels)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        pairs = self.tensor_pairs(trace)
        losses = []
        for k, ((s, t), mask) in enumerate(zip(pairs, self.masks(trace, pairs), strict=True)):
            error = (self.generators[f'{k}'](s * mask) - t).square()
            valid = segmentor.counted_pixels(self, trace, s.shape[2:])
            if valid is not None:
                error = error * valid[:, None]
            losses.append(error.sum() / len(s))
        return {'loss': sum(losses)}

    def masks(self, trace: Trace, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """This step's mask of each level, (N, 1, H, W) or (N, C, 1, 1)."""
        step, device = trace.progress.iteration, trace.inputs.device
        generator = step_generator(self.seed, step, device=device)
        channel = self.mask == 'channel'
        shapes = [(*s.shape[:2], 1, 1) if channel else (len(s), 1, *s.shape[2:]) for s, _ in pairs]
        return [draw_mask(shape, self.mask_ratio, generator) for shape in shapes]

    def describe(self) -> list[str]:
        hidden = f'{self.mask_ratio:.0%} of all {"cells" if self.mask == "spatial" else "channels"}'
        count = sum(p.numel() for p in self.generators.parameters())
        return [*super().describe(), f'hides {hidden}; generation blocks {count / 1e6:.1f} M']

    def views(self, trace: Trace) -> list[View]:
        """The cells that are kept, and the error of the generated features."""
        pairs = self.tensor_pairs(trace)
        views = []
        for k, ((s, t), mask) in enumerate(zip(pairs, self.masks(trace, pairs), strict=True)):
            if self.mask == 'spatial':
                views.append(View('kept cells', mask[:, 0] > 0, kind='mask'))
            error = (self.generators[f'{k}'](s * mask) - t).square().mean(1).sqrt()
            views.append(View('error of generated features', error))
        return views
