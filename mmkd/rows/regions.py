"""Regions that may contain objects, taken from the current step without further sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkd.families import dense, is_two_stage, two_stage
from mmkd.families.comparable import check_decodable, has_codes
from mmkd.families.dense import ground_truth_rois
from mmkd.families.pyramid import among, bind_pyramid, tap_beside
from mmkd.functional.boxes import thin_out
from mmkd.functional.device import members
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.options import check_choice, check_number
from mmkd.rows import predictions
from mmkd.scales import in_own_pixels, seen_by_teachers
from mmkd.tap import Tap, Trace, parse_taps

SOURCES = ('student', 'teacher', 'gt')


class Regions:
    """Source of an objective's regions, and the maps of a pyramid on which they are compared.

    Args:
        owner (str): name of the objective, for messages.
        source (str | None): see :func:`regions`; ``None`` is that of :func:`default_source`.
        count (int): largest number of each image.
        fg_fraction (float | None): see :func:`regions`.

    Raises:
        ValueError: options out of range.
    """

    def __init__(
        self, owner: str, source: str | None, count: int, fg_fraction: float | None = None
    ) -> None:
        self.owner = owner
        self.source = check_choice(owner, 'proposal_source', source, (None, *SOURCES))
        self.maps_at: tuple[set[str], set[str]] = (set(), set())
        self.count = check_number(owner, 'proposals', count, 1, whole=True)
        self.fg_fraction = check_number(owner, 'fg_fraction', fg_fraction, 0, 1, optional=True)

    def bind(self, objective: Objective, student: nn.Module, teacher: nn.Module) -> None:
        """Set the default pyramid of the objective, and the taps that the regions need."""
        on_rois = is_two_stage(student)
        bind_pyramid(objective, student, teacher, two_stage.levels(student) if on_rois else None)
        self.source = self.source or default_source(student)
        if self.fg_fraction is not None and not (on_rois and self.source == 'student'):
            raise ValueError(
                f'{self.owner}: fg_fraction needs the RoIs that a two-stage student samples, but '
                f'regions come from {self.source!r} of a {type(student).__name__}.'
            )
        taps = region_taps(self.owner, self.source, student, teacher)
        objective.asks_teacher = self.source == 'teacher'
        # RoIs of a two-stage student are there in training alone, with ground truth.
        objective.label_free = self.source != 'gt' and not (on_rois and self.source == 'student')
        self.maps_at = tap_beside(objective, taps)

    def pyramids(
        self, student: list[Level] | None, teacher: list[Level] | None
    ) -> tuple[list[Level] | None, list[Level] | None]:
        """The levels of both pyramids, without the taps that only serve the regions."""
        return among(student, self.maps_at[0]), among(teacher, self.maps_at[1])

    def strides(self, student: list[Level] | None, pairs: list[tuple[int, int]]) -> list[int]:
        """Stride of each pair, else ValueError."""
        strides = [student[i].stride or 0 for i, _ in pairs] if student else []
        if 0 in (strides or [0]):
            raise ValueError(
                f'{self.owner} needs feature maps of known stride, found {strides or "no shapes"} '
                f"at {', '.join(self.maps_at[0])}. Tap the pyramid, usually 'neck'."
            )
        return strides

    def of(self, trace: Trace) -> Tensor:
        """The regions of one step, (R, 5)."""
        return regions(trace, self.source, self.count, self.fg_fraction)


def default_source(student: nn.Module) -> str:
    """The student, where it samples RoIs or its boxes can be decoded, else the ground truth."""
    own = is_two_stage(student) or has_codes(student)
    return 'student' if own else 'gt'


def region_taps(
    owner: str, source: str, student: nn.Module, teacher: nn.Module
) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """Taps on student and teacher that :func:`regions` needs.

    Raises:
        ValueError: boxes of a head that cannot be decoded.
    """
    if source == 'teacher':
        check_decodable(owner, student, teacher, source)
        return (), parse_taps(two_stage.features_tap(teacher))
    if source == 'gt':
        return (), ()
    if is_two_stage(student):
        return parse_taps([two_stage.rois_tap(student), two_stage.targets_tap(student)]), ()
    check_decodable(owner, student, teacher, source)
    return parse_taps(dense.outputs_tap(student)), ()


@torch.no_grad()
def regions(trace: Trace, source: str, count: int, fg_fraction: float | None = None) -> Tensor:
    """Regions of all images, (R, 5): image index and xyxy in pixels of the padded input.

    Args:
        source (str): ``'student'`` takes the RoIs that a two-stage student samples in this step,
            or of a one-stage student the best boxes after NMS; ``'teacher'`` the best boxes of its
            RPN or head; ``'gt'`` the ground truth.
        count (int): largest number of each image; sampled RoIs are subsampled evenly.
        fg_fraction (float | None): at most this share of ``count`` is foreground; for sampled RoIs.
    """
    if source == 'gt':
        return ground_truth_rois(trace.samples, trace.inputs.device)
    if source == 'teacher':
        model = trace.teacher.model
        feats = trace.teacher[two_stage.features_tap(model)]
        outputs = predictions.head_outputs(model, feats)
        _, samples = seen_by_teachers(trace.inputs, trace.samples)
        return in_own_pixels(predictions.proposals(model, outputs, samples, count), trace)
    model = trace.student.model
    if is_two_stage(model):
        return _sampled(trace, count, fg_fraction)
    outputs = [t.detach() for t in trace.student[dense.outputs_tap(model)]]
    return predictions.proposals(model, outputs, trace.samples, count)


def _sampled(trace: Trace, count: int, fg_fraction: float | None) -> Tensor:
    model = trace.student.model
    rois = trace.student[two_stage.rois_tap(model)][0].detach()
    groups = rois[:, 0].long()
    quotas = groups.new_full((len(trace.samples),), count)
    if fg_fraction is not None:
        labels = two_stage.targets(trace)[0]
        foreground = (labels < two_stage.box_head(model).num_classes).long()
        found = (members(groups, len(quotas)) * foreground[:, None]).sum(0)
        most = found.clamp(max=round(fg_fraction * count))
        groups, quotas = 2 * groups + foreground, torch.stack((quotas - most, most), 1).flatten()
    return rois[thin_out(groups, quotas).nonzero()[:, 0]]
