"""Detectors that learn from image labels: mmkd.WeakDetector with mmkd.MILRoIHead."""

from __future__ import annotations

from torch import nn

from mmkd.families import is_weak
from mmkd.families.comparable import Misfit, named
from mmkd.functional.mil import Look, Targets
from mmkd.tap import Trace

#: what each view of the images shows, called once a step; pseudo labels, for each refinement
LOOK, TARGETS = 'roi_head.look()', 'roi_head.get_targets()'
#: scores of classes by the branch before, (R, K), for each refinement
SCORES = f'{TARGETS}@in[scores]'


def check_weak(owner: str, student: nn.Module) -> None:
    """A detector with mmkd.MILRoIHead and refinements, else Misfit."""
    if not is_weak(student) or not student.roi_head.refinements:
        raise Misfit(
            f'{owner} is for detectors that learn from image labels, but the student is '
            f'{named(student)}{" with refinements=0" * is_weak(student)}; take mmkd.WeakDetector '
            "with roi_head=dict(type='mmkd.MILRoIHead', refinements=3, …)."
        )


def looks(trace: Trace) -> list[Look]:
    """What each view of the images shows in this step, in float32, the images themselves first."""
    (found,) = trace.student.raw(LOOK)
    return [
        Look(rois, features.float(), [x.float() for x in outputs])
        for rois, features, outputs in found
    ]


def targets(trace: Trace) -> list[Targets]:
    """The pseudo labels that each refinement learns in this step."""
    return [Targets(*one) for one in trace.student.raw(TARGETS)]
