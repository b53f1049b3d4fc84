"""How far the student is from earlier and later states of a teacher, on some training images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.registry import DATASETS
from torch import Tensor, nn

from mmkd.borrowed import unwrapped
from mmkd.config import calm_dataset
from mmkd.functional.logit_distances import soft_kl
from mmkd.objective import PairObjective
from mmkd.pixels import Pixels
from mmkd.route import run_route, shortest_route
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Side, Tap, Trace
from mmkd.teacher import Teacher
from mmkd.teachers.stand_in import count_classes, scores_tap
from mmkd.untouched import evaluation, untouched_random_state

MEASURES = ('kl', 'feature')
BATCH = 64


def feature_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """``sum ||s - t||^2`` and ``sum ||t||^2`` of (student, teacher) of equal shapes."""
    apart = torch.stack([(s - t).square().sum() for s, t in pairs]).sum()
    return apart, torch.stack([t.square().sum() for _, t in pairs]).sum()


class Hardness:
    """H of states of a teacher: its distance from the student as it is, in eval mode.

    ``'kl'``: the mean of KL(p_T || p_S) at temperature 1 over images or pixels. ``'feature'``:
    ``sum ||A(s) - t||^2 / sum ||t||^2`` at the taps of the objectives that compare maps with it, s
    behind their adapters A. The student computes in float32. Random streams, modes and statistics
    stay as they were.

    Args:
        teacher (Teacher): its own network is run with the states' weights.
        runner (Runner): with a Distiller as model; its training set and the validation's pipeline.
        measure (str): ``'kl'`` or ``'feature'``.
        count (int): images, at equal distances in the training set.

    Raises:
        ValueError: networks without comparable class scores; no objective that compares maps; no
            validation, whose pipeline would show images without random changes.
    """

    def __init__(self, teacher: Teacher, runner: Any, measure: str, count: int) -> None:
        model = unwrapped(runner.model)
        names = [name for name, one in model.teachers.items() if one is teacher]
        if not names:
            raise ValueError(
                'Anchors: a member of an ensemble has no objective of its own by which its next '
                "anchor could be chosen; take rule='even' there."
            )
        self.name, self.student, self.measure = names[0], model.student, measure
        self.pixels = Pixels.of(self.student)
        self.objectives = [
            o for o in model.objectives.values() if self.name in model.plan.teacher_names(o)
        ]
        self.teacher = copy.copy(teacher)
        if measure == 'kl':
            self._compare_scores()
        else:
            self._compare_maps()
        self.dataset = calm_images(runner)
        self.collate = runner.train_dataloader.collate_fn
        self.count = min(count, len(self.dataset))

    def _compare_scores(self) -> None:
        counts = [count_classes('Anchors', m) for m in (self.student, self.teacher.model)]
        if counts[0] != counts[1]:
            raise ValueError(
                f"Anchors: measure='kl' compares class scores, but the student has {counts[0]} "
                f"classes and the teacher {counts[1]}. Take measure='feature'."
            )
        self.teacher.set_taps([Tap.parse(scores_tap(self.teacher.model))])
        self.taps = [Tap.parse(scores_tap(self.student))]

    def _compare_maps(self) -> None:
        self.pairs = [o for o in self.objectives if isinstance(o, PairObjective)]
        if not self.pairs:
            found = ', '.join(type(o).__name__ for o in self.objectives)
            raise ValueError(
                "Anchors: measure='feature' needs an objective that compares maps pair by pair, "
                f"such as FitNet or CWD, found {found}. Take measure='kl'."
            )
        self.taps = [tap for objective in self.pairs for tap in objective.student_taps]

    def __call__(self, states: Sequence[Mapping[str, Tensor]], progress: Progress) -> list[float]:
        """H of each state of the teacher, of which the last one is left in its network."""
        return self._of(states, progress, self.count)

    def rehearse(self) -> None:
        """Compare one image: what cannot be compared is said before training, not amid it."""
        state = {key: value.clone() for key, value in self.teacher.model.state_dict().items()}
        try:
            self._of([state], Progress(), 1)
        except ValueError as error:
            raise ValueError(
                f"Anchors: measure='{self.measure}' cannot compare these networks: {error}"
            ) from None

    @torch.no_grad()
    def _of(
        self, states: Sequence[Mapping[str, Tensor]], progress: Progress, count: int
    ) -> list[float]:
        recorder, route = Recorder(self.student, self.taps), shortest_route(self.student, self.taps)
        apart = torch.zeros(len(states), dtype=torch.float64)
        total = torch.zeros(len(states), dtype=torch.float64)
        device = next(self.student.parameters()).device.type
        with ExitStack() as stack:
            stack.enter_context(untouched_random_state())
            # Of the step: in older versions of torch its autocast would keep the weights that it
            # casts here, without their gradients, for the pass that trains.
            stack.enter_context(torch.autocast(device, enabled=False))
            for module in (self.student, *self.objectives):
                stack.enter_context(evaluation(module))
            for inputs, samples in self._batches(count):
                with recorder.record(inputs) as own:
                    run_route(self.student, route, inputs, samples)
                for j, state in enumerate(states):
                    self.teacher.model.load_state_dict(state)
                    other = self.teacher(inputs, samples, self.pixels)
                    found = self._distance(own, other, samples, progress)
                    apart[j] += found[0].double().cpu()
                    total[j] += found[1].double().cpu()
        return (apart / total.clamp(min=torch.finfo(torch.float64).tiny)).tolist()

    def _distance(
        self, own: Side, other: Side, samples: list, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Summed distance, and what it is divided by at the end."""
        if self.measure == 'feature':
            trace = Trace(own.inputs, samples, own, {self.name: other}, progress)
            return feature_distance([p for o in self.pairs for p in o.tensor_pairs(trace)])
        tap = scores_tap(self.teacher.model)
        student, teacher = own[self.taps[0]][0], other[tap][0]
        if student.shape != teacher.shape:
            raise ValueError(
                f'Anchors: class scores have the shapes {tuple(student.shape)} and '
                f"{tuple(teacher.shape)}. Take measure='feature', or networks of one stride."
            )
        rows = soft_kl(student.movedim(1, -1), teacher.movedim(1, -1), 1.0)
        return rows.sum(), rows.new_tensor(float(rows.numel()))

    def _batches(self, count: int) -> Iterator[tuple[Tensor, list]]:
        chosen = [i * len(self.dataset) // count for i in range(count)]
        preprocess: nn.Module = self.student.data_preprocessor
        for start in range(0, count, BATCH):
            part = [self.dataset[i] for i in chosen[start : start + BATCH]]
            data = preprocess(self.collate(part), False)
            yield data['inputs'], data['data_samples']


def calm_images(runner: Any) -> Any:
    """The training set; one that is given by a config with the pipeline of the validation.

    Raises:
        ValueError: the run has no validation.
    """
    config = (runner.cfg.get('train_dataloader') or {}).get('dataset')
    if not isinstance(config, Mapping):
        return runner.train_dataloader.dataset
    calm = calm_dataset(runner.cfg)
    if calm is None:
        raise ValueError(
            'Anchors: the next anchor is chosen on training images with the pipeline of the '
            "validation, but this run has no val_dataloader. Add one, or take rule='even'."
        )
    with untouched_random_state():
        return DATASETS.build(calm)
