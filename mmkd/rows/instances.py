"""Samples of relation losses: images, objects of a detector, regions of a segmentor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import DETECTORS, classifier, family_of, segmentor
from mmkd.families.comparable import named
from mmkd.families.dense import ground_truth, ground_truth_rois
from mmkd.families.pyramid import bind_pyramid
from mmkd.functional.areas import areas_of_interest, presence, region_means
from mmkd.functional.boxes import by_level, roi_features
from mmkd.functional.device import upload
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.padding import crop_padding
from mmkd.functional.relations import at_most
from mmkd.levels import Level, tap_of
from mmkd.objective import Objective
from mmkd.options import check_choice
from mmkd.rows.vectors import check_partners, row_pairs, vectors
from mmkd.scales import full_size, in_teachers_pixels
from mmkd.tap import Trace

ROWS = ('images', 'boxes', 'regions')
#: more boxes or regions are thinned out evenly: angles between them cost their cube
MOST = 256
#: of the features looked at of a box
_SIZE = 7


class Instances:
    """The rows of both networks, partners by position.

    - ``'images'``: one row per image; each tapped tensor is a layer. - ``'boxes'``: one row per
    ground-truth box, RoI-aligned on the level of FPN's rule; each tap, a pyramid or one map, is a
    layer. - ``'regions'``: one row per class and image, the mean over its pixels; each tapped map
    is a layer.

    Args:
        owner (str): name of the objective, for messages.
        rows (str | None): one of the above; ``None``: chosen for the student's family.
        gather (bool): the rows of all ranks, see :func:`all_gather_rows`.
        pooled (bool): images and boxes are averaged over places, else flattened.

    Raises:
        ValueError: unknown rows.
    """

    def __init__(self, owner: str, rows: str | None, gather: bool, pooled: bool = True) -> None:
        self.owner, self.gather, self.pooled = owner, gather, pooled
        self.rows = check_choice(owner, 'instances', rows, (None, *ROWS))
        self.strides: tuple[list[list[int]], ...] = ()
        self.classes, self.ignore_index = 0, 255

    def bind(
        self,
        objective: Objective,
        find: Callable[[nn.Module], str | list[str]],
        student: nn.Module,
        teacher: nn.Module | None,
    ) -> None:
        """Choose the kind of row, and default taps for it.

        Args:
            find (callable): taps of a classifier.

        Raises:
            ValueError: models that do not fit.
        """
        family = family_of(student)
        usual = {'segmentor': 'regions', **dict.fromkeys(DETECTORS, 'boxes')}.get(family, 'images')
        if family == 'segmentor' and not segmentor.classifies_pixels(student):
            usual = 'images'  # its data have masks of instances, and no class of every pixel
        self.rows = self.rows or usual
        objective.needs_ground_truth = self.rows != 'images'
        objective.label_free = self.rows == 'images'
        if self.rows == 'images':
            classifier.choose_taps(objective, find, student, teacher)
        elif self.rows != usual and family != 'other':
            raise ValueError(
                f"{self.owner}: instances='{self.rows}' does not suit {named(student)}; use "
                f"'{usual}', or leave it out."
            )
        elif self.rows == 'boxes':
            if not objective.student_taps:
                bind_pyramid(objective, student, teacher)
        else:
            segmentor.check_labelled(self.owner, student)
            segmentor.bind_features(objective, student, teacher)
            self.classes = max(segmentor.classes(student), 2)
            head = segmentor.decode_head(student)[0]
            self.ignore_index = getattr(head, 'ignore_index', 255)

    def setup(
        self, student: list[Level] | None, teacher: list[Level] | None, least: int = 1
    ) -> tuple[list[Level] | None, list[Level] | None]:
        """See the shapes: equally many layers of both sides, and no fewer than ``least``.

        Returns:
            tuple: a level for each layer of student and teacher.

        Raises:
            ValueError: other numbers; boxes on maps of unknown stride or of unequal widths.
        """
        if self.rows == 'boxes':
            single = _one_level(student or [], teacher or [])
            pyramids = [self._pyramids(levels, single) for levels in (student, teacher)]
            self.strides = tuple([[x.stride or 0 for x in maps] for maps in p] for p in pyramids)
            student, teacher = ([maps[0] for maps in side] for side in pyramids)
        check_partners(self.owner, student, teacher, least)
        return student, teacher

    def _pyramids(self, levels: list[Level] | None, single: str) -> list[list[Level]]:
        """The levels of each tap; messages name ``single``, taps at one level of both."""
        taps = dict.fromkeys(level.tap for level in levels or [])
        pyramids = [[level for level in levels or [] if level.tap == tap] for tap in taps]
        if not pyramids:
            raise ValueError(
                f'{self.owner} looks at boxes on maps whose stride it must know, but the taps '
                "could not be probed. Tap the neck, or set instances='images'."
            )
        for maps in pyramids:
            if not all(x.stride for x in maps) or len({x.channels for x in maps}) > 1:
                raise ValueError(
                    f"{self.owner} compares the features of boxes, but '{maps[0].tap}' gives "
                    f'{", ".join(map(str, maps))}. Tap maps of one width{single}, or set '
                    "instances='images'."
                )
        return pyramids

    def pairs(self, trace: Trace, objective: Objective) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) of each layer, (R, D_s) and (R, D_t); a row of 0 without instances."""
        if self.rows not in ('boxes', 'regions'):
            return row_pairs(trace, objective, self.pooled, self.gather)
        find = self._boxes if self.rows == 'boxes' else self._regions
        pairs = zip(*find(trace, objective), strict=True)
        return [(self._together(s), self._together(t.detach())) for s, t in pairs]

    def together(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The rows (B, D) of all ranks, where those are compared."""
        return tuple(all_gather_rows(x) if self.gather else x for x in rows)

    def labels(self, trace: Trace, objective: Objective) -> Tensor:
        """Class of each row, (R,) long, in the order of :meth:`pairs`; -1 of a row of 0."""
        device = trace.inputs.device
        if self.rows == 'boxes':
            found = ground_truth(trace.samples, device)[1]
        elif self.rows == 'regions':
            labels = segmentor.known_labels(
                objective, trace.samples, self.classes, self.ignore_index
            )
            found = presence(labels, self.classes).nonzero()[:, 1]
        else:
            found = classifier.labels(trace.samples, device)
        found = all_gather_rows(found) if self.gather else found
        if not len(found):
            return found.new_full((1,), -1)
        return at_most(found, MOST) if self.rows != 'images' else found

    def _together(self, rows: Tensor) -> Tensor:
        rows = all_gather_rows(rows) if self.gather else rows
        if not len(rows):
            return rows.sum() + rows.new_zeros(1, rows.shape[1])
        return at_most(rows, MOST)

    def _boxes(self, trace: Trace, objective: Objective) -> list[list[Tensor]]:
        rois = ground_truth_rois(trace.samples, trace.inputs.device)
        seen = rois, in_teachers_pixels(rois, trace)
        placed: dict[tuple, Any] = {}

        def features(maps: list[Tensor], strides: list[int], who: int) -> Tensor:
            key = (tuple(sorted(strides)), who if trace.scale != 1 else 0)
            if key not in placed:
                placed[key] = by_level(seen[who], key[0])
            return roi_features(maps, strides, seen[who], _SIZE, 2, placed=placed[key])

        sides = (trace.student, objective.student_taps), (trace.teacher, objective.teacher_taps)
        return [
            [
                vectors(features(side[tap], of_tap, who), self.pooled)
                for tap, of_tap in zip(taps, self.strides[who], strict=True)
            ]
            for who, (side, taps) in enumerate(sides)
        ]

    def _regions(self, trace: Trace, objective: Objective) -> list[list[Tensor]]:
        labels = segmentor.known_labels(objective, trace.samples, self.classes, self.ignore_index)
        present = presence(labels, self.classes).tolist()
        student = [x for tap in objective.student_taps for x in trace.student[tap]]
        seen = trace.teacher.inputs, full_size(trace)
        teacher = [
            crop_padding(x, *seen) for tap in objective.teacher_taps for x in trace.teacher[tap]
        ]
        rows = partial(self._region_rows, labels=labels, present=present)
        return [list(map(rows, side)) for side in (student, teacher)]

    def _region_rows(self, x: Tensor, labels: Tensor, present: list[list[bool]]) -> Tensor:
        """Mean feature of each region, image by image and class by class, (R, C)."""
        classes = [k for k, column in enumerate(zip(*present, strict=True)) if any(column)]
        areas = areas_of_interest(
            labels, self.classes, x.shape[2:], kernel=1, binary=False, present=classes
        )
        where = [i for i, there in enumerate(chain(*present)) if there]
        return region_means(x, areas).flatten(0, 1)[upload(where, x, torch.long)]

    def describe(self) -> list[str]:
        """For ``mmkd plan``."""
        what = {'boxes': 'ground-truth boxes', 'regions': 'regions of one class in one image'}
        return [f'compares {what.get(str(self.rows), "images")}']


def _one_level(student: list[Level], teacher: list[Level]) -> str:
    """Taps at the coarsest level that both have, in words; empty where there is none."""
    common = [
        (tap_of(student, [i]), tap_of(teacher, [j]))
        for i, s in enumerate(student)
        for j, t in enumerate(teacher)
        if s.stride and s.stride == t.stride
    ]
    taps = common[-1] if common else ('', '')
    return f", such as student='{taps[0]}', teacher='{taps[1]}'" if all(taps) else ''
