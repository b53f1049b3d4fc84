"""Runs a config's data through its networks and draws the maps and boxes of each objective."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from mmkd.config import type_name
from mmkd.pixels import Pixels
from mmkd.plan.recording import load_student, record
from mmkd.registry import DATASETS, MODELS
from mmkd.teacher import Teacher
from mmkd.visualization import canvas
from mmkd.visualization.page import page
from mmkd.visualization.predicted_classes import prediction_views, segments
from mmkd.visualization.shown import Shown, restore

SPLITS = ('train', 'val')


@dataclass
class Viewer:
    """Everything that pages are drawn from.

    Args:
        config (Config): of a distilled run, or a plain one to see its data only.
        split (str): ``'train'`` or ``'val'``, whose pipeline and preprocessing are used.
        checkpoint (str | None): the student's weights; it is untrained without.
        seed (int): for pipelines that draw random numbers.
        point (tuple[float, float] | None): a pixel (x, y) of the input, for objectives that show
            what is like it.

    Raises:
        ValueError: an unknown split; a checkpoint that does not fit.
        FileNotFoundError: data or checkpoint missing.
    """

    config: Config
    split: str = 'train'
    checkpoint: str | None = None
    seed: int = 0
    point: tuple[float, float] | None = None
    dataset: Any = field(init=False)
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, found {self.split!r}.')
        init_default_scope(self.config.get('default_scope') or 'mmengine')
        self.dataset = build_dataset(self.config, self.split)
        if getattr(self.dataset, 'no_images', False):
            raise ValueError(
                f'The {self.split} set has no images to draw: an objective generates them. Choose '
                'another split, --split val.'
            )
        self.model = MODELS.build(self.config.model).eval()  # in the step and in its pictures
        if self.checkpoint:
            load_student(self.model, self.checkpoint)

    def pages(self, indices: Sequence[int], out: str | Path) -> Iterator[Path]:
        """Write one PNG for each image and objective; yields the paths as they are written.

        Raises:
            ValueError: an index beyond the dataset.
        """
        beyond = [i for i in indices if not 0 <= i < len(self.dataset)]
        if beyond:
            raise ValueError(f'indices {beyond}: the {self.split} set has {len(self.dataset)}.')
        for part in self._batches(indices):
            inputs, samples = self.load(part)
            shown = restore(inputs, samples, Pixels.of(self.student), self.dataset.metainfo)
            for name, drawn in self._pictures(inputs, samples, shown):
                for index, one, picture in zip(part, shown, drawn, strict=True):
                    stem = one.name.rpartition('.')[0] or one.name
                    yield canvas.save(picture, Path(out) / f'{name}_{index:06d}_{stem}.png')

    @property
    def student(self) -> nn.Module:
        """The student, or the only model of a plain config."""
        return getattr(self.model, 'student', self.model)

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        """One batch, so that padding shows; mmseg pads no batch in testing: one image each."""
        alone = self.split == 'val' and hasattr(self.student, 'decode_head')
        return [[i] for i in indices] if alone else [list(indices)]

    def load(self, indices: Sequence[int]) -> tuple[torch.Tensor, list]:
        """Padded pixels (N, 3, H, W) and data samples of some images, as one batch."""
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)
        batch = pseudo_collate([self.dataset[i] for i in indices])
        data = self.student.data_preprocessor(batch, training=self.split == 'train')
        return data['inputs'], data['data_samples']

    def _pictures(
        self, inputs: torch.Tensor, samples: list, shown: list[Shown]
    ) -> Iterator[tuple[str, list[np.ndarray]]]:
        """(name, a page for each image): segmentors' predictions, then each objective."""
        height, width = inputs.shape[2:]
        if self.point and not (0 <= self.point[0] < width and 0 <= self.point[1] < height):
            raise ValueError(
                f'point {self.point} lies outside of the input of {width} x {height} pixels.'
            )
        objectives = getattr(self.model, 'objectives', {})
        teachers = getattr(self.model, 'teachers', {})
        if segments(self.student) and (teachers or self.checkpoint):
            views = prediction_views(self.student, teachers, inputs, samples)
            about = self._networks(*teachers.values())
            yield 'predictions', [page(one, views, 'predictions', *about) for one in shown]
        if not objectives:
            yield 'data', [page(one, [], 'data: no objective in this config') for one in shown]
            return
        for name, trace in record(self.model, inputs, samples).items():
            objective = objectives[name]
            views = objective.views_at(trace, self.point) if self.point else objective.views(trace)
            heading = f'{name}: {type(objective).__name__}, weight {objective.weight}'
            lines, warnings = self._about(name)
            if not views:
                lines.append('This objective has no pictures of its own (Objective.views).')
            yield name, [page(one, views, heading, lines, warnings) for one in shown]

    def _about(self, name: str) -> tuple[list[str], list[str]]:
        """Lines and warnings on one objective and its networks."""
        objective = self.model.objectives[name]
        plan, teachers = self.model.plan, self.model.teachers
        judges = plan.teacher_names(objective)
        lines, warnings = self._networks(*(teachers[n] for n in judges if n in teachers))
        who, *others = plan.called(objective)
        for side, taps in (
            (who, objective.student_taps),
            *((other, objective.teacher_taps) for other in others or ['teacher']),
        ):
            if taps:
                lines.append(f'{side} taps: {", ".join(map(str, taps))}')
        return lines + objective.describe(), warnings

    def _networks(self, *teachers: Teacher) -> tuple[list[str], list[str]]:
        """Lines and warnings on the student and some teachers."""
        lines = [f'split {self.split}, student {describe(self.student)}']
        warnings = [] if self.checkpoint else ['The student is untrained: no --checkpoint.']
        for teacher in (part for one in teachers for part in one.parts().values()):
            lines.append(f'teacher {describe(teacher.model)}')
            if teacher.source == 'random':
                warnings.append("The teacher has random weights: checkpoint='random'.")
        return lines, warnings


def describe(model: nn.Module) -> str:
    """Class, backbone and size of a network."""
    backbone = getattr(model, 'backbone', None)
    depth = f'-{backbone.depth}' if hasattr(backbone, 'depth') else ''
    name = f', {type(backbone).__name__}{depth}' if backbone is not None else ''
    count = sum(p.numel() for p in model.parameters()) / 1e6
    return f'{type(model).__name__}{name}, {count:.2f} M parameters'


def build_dataset(config: Config, split: str) -> Any:
    """The dataset of a split, with annotations that follow the image's resizing.

    Test pipelines load annotations after the resizing, because metrics want them unresized.
    """
    entry = config[f'{split}_dataloader']['dataset']
    if split != 'train':
        _reorder(entry)
    return DATASETS.build(entry)


def _reorder(entry: Any) -> None:
    """`annotations_first` in a dataset's config, and in those of the datasets that it wraps."""
    if entry.get('pipeline'):
        entry['pipeline'] = annotations_first(entry['pipeline'])
    for inner in (entry.get('dataset'), *(entry.get('datasets') or ())):
        if isinstance(inner, Mapping):
            _reorder(inner)


def annotations_first(pipeline: list) -> list:
    """A pipeline whose ``LoadAnnotations`` (or mmdet's ``LoadPanopticAnnotations``) follows right
    behind the loading of the image."""
    loads = [step for step in pipeline if re.search(r'Load\w*Annotations$', type_name(step))]
    rest = [step for step in pipeline if step not in loads]
    return [*rest[:1], *loads, *rest[1:]]
