"""Default taps of methods that compare the pyramids of two detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mmkd.families import FAMILIES, family_of
from mmkd.families.comparable import Misfit, named
from mmkd.tap import Tap, parse_taps

if TYPE_CHECKING:
    from mmkd.levels import Level
    from mmkd.objective import Objective


def bind_pyramid(
    objective: Objective, student: nn.Module, teacher: nn.Module, levels: int | None = None
) -> None:
    """Check the families, and give an objective without taps the pyramid of both models.

    That is the neck, or the backbone where one of them has no neck.

    Args:
        levels (int | None): only the first so many maps.

    Raises:
        Misfit: a model of a family for which the objective does not work.
    """
    families = [family_of(model) for model in (student, teacher)]
    if not set(families) <= {*objective.families, 'other'}:
        known = ', '.join(FAMILIES[name] for name in objective.families)
        own, other = (FAMILIES.get(name, name) for name in families)
        raise Misfit(
            f'{type(objective).__name__} works for {known}, but the student is {named(student)} '
            f'({own}) and the teacher {named(teacher)} ({other}).'
        )
    part = pyramid_of(student, teacher)
    taps = parse_taps(part if levels is None else f'{part}[0:{levels}]')
    objective.student_taps = objective.student_taps or taps
    objective.teacher_taps = objective.teacher_taps or taps


def pyramid_of(student: nn.Module, teacher: nn.Module) -> str:
    """``'neck'``, or ``'backbone'`` where one of the two has no neck."""
    necks = [getattr(model, 'neck', None) for model in (student, teacher)]
    return 'backbone' if None in necks else 'neck'


def check_maps(owner: str, *sides: list[Level] | None) -> None:
    """Refuse taps that give vectors or tokens."""
    for level in (level for side in sides for level in side or []):
        if len(level.shape) != 3:
            raise ValueError(
                f"{owner} compares feature maps, but '{level.tap}' gives {level}. Tap a neck or a "
                'stage of a backbone; class scores are for KD.'
            )


def tap_beside(
    objective: Objective, taps: tuple[tuple[Tap, ...], tuple[Tap, ...]]
) -> tuple[set[str], set[str]]:
    """Add taps beside the pyramid to an objective, on student and teacher.

    Returns:
        tuple: the taps of the pyramid, for :func:`among`.
    """
    own, other = objective.student_taps, objective.teacher_taps
    objective.student_taps += tuple(tap for tap in taps[0] if tap not in own)
    objective.teacher_taps += tuple(tap for tap in taps[1] if tap not in other)
    return {str(tap) for tap in own}, {str(tap) for tap in other}


def among(levels: list[Level] | None, taps: set[str]) -> list[Level] | None:
    """The levels at these taps, for objectives that have other taps as well."""
    return levels and [level for level in levels if level.tap in taps]
