"""QuantMimic: squared distance of quantised features inside region proposals."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.adapters.quantised_output import quantised_places
from mmkd.families import DETECTORS
from mmkd.functional.crops import NORMS, crop_distance
from mmkd.functional.quantise import percentile, quantise, straight_through
from mmkd.levels import Level
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS
from mmkd.rows.regions import Regions
from mmkd.tap import Tap, Trace

ROUNDS = ('both', 'teacher', 'student', 'none')


@MODELS.register_module()
class QuantMimic(PairObjective):
    """Quantization mimic: towards very tiny CNN for object detection.

    Wei et al., ECCV 2018: ``1 / (2 N) * sum_i 1 / m_i * ||Q(u_i) - Q(r(v_i))||^2`` over N regions,
    u_i and v_i the teacher's and student's features inside region i, r a 1x1 convolution, also at
    equal widths, Q the rounding to multiples of a step, through which gradients pass straight.
    There is no public code, and the step is not known. Regions are those of :class:`Mimic`.

    In the paper the teacher is first fine-tuned with Q in its forward pass, which ``mmkd train
    configs/chains/quant_mimic_frcnn_bccd.py`` does, the student's included. A teacher with the edit
    ``mmkd.QuantiseMap`` at the tapped maps brings its step and sign with it. Any other is rounded
    here alone, and the student is then deployed without Q.

    Args:
        rounds (str): whose maps are rounded: ``'both'``, ``'teacher'``, ``'student'`` (no gain, in
            the paper) or ``'none'``, which is Mimic.
        step (float | None): distance of two values. ``None`` is that of the teacher's edit, or 1/16
            of the 99.9th percentile of the teacher's absolute values in the first batch, the
            largest over processes; saved.
        signed (bool | None): also negative multiples. ``None``: as the teacher's edit, else yes,
            except on backbone taps, which end in a ReLU as in the paper; FPN outputs are signed.
        norm (str): m_i is C * h_i * w_i (``'all'``), h_i * w_i (``'spatial'``) or 1 (``'none'``, as
            printed).
        proposal_source (str | None): see :class:`Mimic`.
        proposals (int): largest number of regions of each image.
        student, teacher, weight, teacher_name, adapt, level_map, resize, in_channels,
        out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range; proposals from a head whose boxes cannot be decoded; taps
            that are no pyramid; a teacher of zeros; maps rounded at another place, or by another
            step, than those tapped.
    """

    compares_classes = False  # class scores only select regions
    families = DETECTORS

    def __init__(
        self,
        *taps: Taps,
        rounds: str = 'both',
        step: float | None = None,
        signed: bool | None = None,
        norm: str = 'all',
        proposal_source: str | None = None,
        proposals: int = 256,
        adapt: str | None = 'conv1x1',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, **pair)
        check_number('QuantMimic', 'step', step, above=0, optional=True)
        self.rounds = check_choice('QuantMimic', 'rounds', rounds, ROUNDS)
        self.signed = signed
        self.levels: int | None = None
        self.norm = check_choice('QuantMimic', 'norm', norm, NORMS)
        self.regions = Regions('QuantMimic', proposal_source, proposals)
        self.strides: list[int] = []
        self.register_buffer('step', torch.tensor(float(step or 0)))  # 0: not calibrated
        self.reported = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        self.regions.bind(self, student, teacher)
        self._take_over(student, teacher)
        if self.signed is None:
            self.signed = not all(tap.startswith('backbone') for tap in self.regions.maps_at[0])

    def _take_over(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Step, sign and levels of a teacher whose maps are rounded; checks where that is."""
        if teacher is None or not (places := quantised_places(teacher)):
            return
        tapped = {tap.path for tap in self.teacher_taps if str(tap) in self.regions.maps_at[1]}
        own = set(quantised_places(student))
        if tapped != set(places) or (own and own != {tap.path for tap in self._own_taps()}):
            beside = f", the student's at {', '.join(own)}" if own else ''
            raise ValueError(
                f"QuantMimic: the teacher's maps are rounded at {', '.join(places)}{beside}, but "
                f'compared at {", ".join(tapped)}. Name one place for both: at= of the edits, '
                'student= and teacher= here.'
            )
        step, signed, levels = next(iter(places.values()))
        given = float(self.step)
        if given and abs(given - step) > 1e-6 * step:
            raise ValueError(
                f"QuantMimic: step={given:g}, but the teacher's maps are rounded to multiples of "
                f'{step:g}. Leave step out.'
            )
        self.step.fill_(step)
        self.signed = signed if self.signed is None else self.signed
        self.levels = levels

    def _own_taps(self) -> list[Tap]:
        return [tap for tap in self.student_taps if str(tap) in self.regions.maps_at[0]]

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        student, teacher = self.regions.pyramids(student, teacher)
        super().setup(student, teacher)
        self.strides = self.regions.strides(student, self.pairs)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        rois, pairs = self.regions.of(trace), self.tensor_pairs(trace)
        if not self.reported:
            self.calibrate([t for _, t in pairs])
        if self.rounds in ('both', 'student'):
            pairs = [(straight_through(s, self.quantised(s)), t) for s, t in pairs]
        if self.rounds in ('both', 'teacher'):
            pairs = [(s, self.quantised(t)) for s, t in pairs]
        levels = [(stride, s, t) for stride, (s, t) in zip(self.strides, pairs, strict=True)]
        channels = pairs[0][0].shape[1] if self.norm == 'all' else 1
        total = crop_distance(levels, rois, self.norm != 'none')
        count = total.new_full((), len(rois))
        return {'loss': total / channels / (2 * count.clamp(min=1)), 'regions': count}

    @torch.no_grad()
    def quantised(self, x: Tensor) -> Tensor:
        """A map rounded to multiples of the step."""
        return quantise(x, self.step, self.signed, self.levels)

    @torch.no_grad()
    def calibrate(self, teachers: list[Tensor]) -> None:
        """Choose the step where none is set; report once the share of zeros that it makes."""
        self.reported = True
        if not self.step > 0:
            top = torch.stack([percentile(t) for t in teachers]).max()
            all_reduce(top, 'max')
            if not top > 0:
                raise ValueError(
                    "QuantMimic: 99.9 % of the teacher's values are 0, which gives no step. Tap "
                    'other maps, or set step.'
                )
            self.step.copy_(top / 16)
        zeros = sum((self.quantised(t) == 0).sum() for t in teachers)
        share = float(zeros) / sum(t.numel() for t in teachers)
        line = f"QuantMimic: step {float(self.step):.4g}, {share:.1%} of the teacher's values are 0"
        print_log(line, logger='current')
        if share > 0.99:
            print_log(
                f'{line}, so there is hardly anything left to imitate. Choose a smaller step.',
                logger='current',
                level=30,
            )
