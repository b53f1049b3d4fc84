"""Checks of the first steps: every term is non-zero, finite, and has a gradient in the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.checks.finite import GradientWatch, all_values, check_losses, check_teachers, task_losses
from mmkd.families import family_of, segmentor
from mmkd.functional.gradients import gradients_at, in_half
from mmkd.functional.nested import flatten
from mmkd.names import turning
from mmkd.options import check_number, match_options, options_of
from mmkd.structures import LABELLED
from mmkd.tap import Side, Trace
from mmkd.task_weight import check_known
from mmkd.trains import player_of

#: share of the total loss from which on a term is mentioned
SHARE = 0.9
#: of a loss in the first step of dynamic loss scaling; gradients that float16 rounds to 0 without
#: it are there in training
LOSS_SCALE = 2.0**16
#: batches without ground truth, or with a late loss of 0, that a term is waited for
PATIENCE = 200


class Guard:
    """Stops a run that would waste a GPU; called once a step with everything that was computed.

    The labels of the first ``steps`` batches of a segmentor must be there and mean classes. In
    every step all losses must be finite. In the first ``steps`` steps in which an objective takes
    part, the teacher's taps must be finite and each of its losses must depend on the student, or,
    for its ``own_losses``, on what it learns itself (or a peer, where it ``teaches_back``) and not
    on the student; after them, each must have been non-zero with a non-zero gradient at least once.
    Where the learner rests, something of the objective's own must learn, in these steps and in the
    first of that kind. A batch without ground truth does not count for a term that is zero in it,
    nor does any batch while one of the ``late_losses`` is, for :data:`PATIENCE` batches at most. A
    term whose factor is 0 in the config is not checked.

    Args:
        steps (int): guarded steps of each objective, 0 for none.
        ratio (float): a term above ``ratio`` times the task loss is reported once, as is one that
            makes up nine tenths of the total.
        score (int): validation samples for the teacher's score, read by PreflightHook.
    """

    def __init__(self, steps: int = 5, ratio: float = 100.0, score: int = 0) -> None:
        self.steps = check_number('preflight', 'steps', steps, 0, whole=True)
        self.ratio = check_number('preflight', 'ratio', ratio, above=0)
        self.score = check_number('preflight', 'score', score, 0, whole=True)
        self.watch: GradientWatch | None = None
        self.seen: dict[str, int] = {}
        self.batches = 0
        self.alive: set[str] = set()
        self.reported: set[str] = set()
        self.waited: dict[str, int] = {}
        self.rested: set[str] = set()  # objectives that were seen while their learner rested

    @classmethod
    def of(cls, preflight: bool | Mapping[str, Any]) -> Guard:
        """Read the config entry: True, False or a mapping of arguments."""
        if isinstance(preflight, bool):
            return cls() if preflight else cls(steps=0)
        if not isinstance(preflight, Mapping):
            raise TypeError(
                'preflight must be True, False or a mapping such as dict(steps=5), '
                f'found {preflight!r}.'
            )
        return cls(**match_options('preflight', preflight, options_of(cls)))

    def look_at(self, student: nn.Module, samples: list) -> None:
        """Check the labels of the first batches, before a loss fails on the device.

        Raises:
            ValueError: a segmentor's batch without labels, or with some beyond its classes.
        """
        if self.batches < self.steps and family_of(student) == 'segmentor':
            labelled = [s for s in samples if s.metainfo.get(LABELLED, True)]
            if labelled or not samples:
                segmentor.check_batch(student, labelled)
        self.batches += 1

    def __call__(
        self,
        distiller: Any,
        task: Mapping[str, Any],
        terms: Mapping[str, Mapping[str, Tensor]],
        traces: Mapping[str, Trace],
    ) -> None:
        """Check one step.

        Raises:
            FloatingPointError: pixels, a teacher or a loss that is not finite, by name.
            RuntimeError: a term without effect on the student, or with one that it must not have.
            ValueError: a factor for losses that the student does not have.
        """
        named = all_values(task, terms)
        guarded = {k: trace for k, trace in traces.items() if self.seen.get(k, 0) < self.steps}
        if self.watch is None or guarded:
            check_teachers(distiller, guarded)
            check_losses(distiller, named, traces)
        else:
            self.watch.expect(named)
        if self.steps and self.batches == 1:
            check_known(distiller.task_weight, own_losses(task, 'student'))
        for name, trace in traces.items():
            objective = distiller.objectives[name]
            losses = {k: v for k, v in terms[name].items() if k.startswith(f'kd.{name}.loss')}
            losses.pop(turning(name), None)
            own = {k: v for k, v in losses.items() if k.rpartition('.')[2] in objective.own_losses}
            students = {k: v for k, v in losses.items() if k not in own}
            if distiller.trains(player_of(objective.learner), trace.progress):
                self._check_ratio(name, students, task, terms, distiller)
                own = own if distiller.trains('objectives', trace.progress) else {}
            elif name in guarded or name not in self.rested:
                own, students = _reaching(name, losses, objective, students), {}
                self.rested.add(name)
            if name not in guarded:
                continue
            self._check_gradient(name, students, trace, distiller)
            self._check_own(name, own, trace, objective)
            taught = {**students, **own}
            judged = [k for k in taught if objective.factor_of(k.rpartition('.')[2])]
            self._count(name, judged, trace, objective, distiller)
            if self.seen.get(name) == self.steps:
                self._conclude(name, judged, terms[name])

    def _count(
        self, name: str, keys: list[str], trace: Trace, objective: Any, distiller: Any
    ) -> None:
        """Count a step in which every term of an objective can be checked."""
        dead = {key.rpartition('.')[2] for key in keys if key not in self.alive}
        learner = distiller.plan.learner(objective)
        known = not dead or has_ground_truth(trace.samples, ignored(learner))
        told = _on_all_ranks(known and not dead & {*objective.late_losses})
        self.waited[name] = self.waited.get(name, 0) + (not told)
        if told or self.waited[name] > PATIENCE:
            self.seen[name] = self.seen.get(name, 0) + 1

    def _check_ratio(
        self,
        name: str,
        losses: Mapping[str, Tensor],
        task: Mapping[str, Any],
        terms: Mapping[str, Mapping[str, Tensor]],
        distiller: Any,
    ) -> None:
        new = [key for key in losses if key not in self.reported]
        if not new or not self.steps:
            return
        objectives = distiller.objectives
        task = own_losses(task, learner := objectives[name].learner)
        if not task:
            return
        own = sum(float(value.detach().sum()) for _, value in task_losses(task))
        others = [term for k, term in terms.items() if objectives[k].learner == learner]
        added = [v for term in others for k, v in term.items() if '.loss' in k]
        total = abs(own) + sum(abs(float(v.detach())) for v in added)
        for key in new:
            value = float(losses[key].detach())
            if value > self.ratio * abs(own):
                text = (
                    f'{key} = {value:.4g} is more than {self.ratio:g} times the task loss '
                    f'({own:.4g}) and will dominate training. Lower its weight.'
                )
            elif own and value >= SHARE * total:
                text = (
                    f'{key} = {value:.4g} makes up {value / total:.0%} of the total loss (the task '
                    f'loss is {own:.4g}). mmkd plan --step compares their gradients.'
                )
            else:
                continue
            self.reported.add(key)
            print_log(text, logger='current', level=WARNING)
        if self.steps and min(self.seen.values(), default=0) >= self.steps:
            self.reported.update(new)  # only the beginning is watched: it costs a sync a step

    def _check_gradient(
        self, name: str, losses: Mapping[str, Tensor], trace: Trace, distiller: Any
    ) -> None:
        objective = distiller.objectives[name]
        taps = objective.student_taps
        leaves = [t for tap in taps for t in _leaves(trace.student, tap)]
        # Of a ReLU network the gradient in the pixels does not depend on the output.
        if objective.needs_input_gradient or objective.runs_student:
            learner = distiller.plan.learner(objective)
            leaves += [p for p in learner.parameters() if p.requires_grad]
        who = f'the {objective.learner}'
        for key, loss in losses.items():
            gradients = gradients_at(loss, leaves)
            known = leaves or not loss.requires_grad
            if known and not any(g is not None for g in gradients):
                raise RuntimeError(
                    f'{key} does not depend on {who}: no gradient reaches '
                    f'{", ".join(map(str, taps))}. Look for a detach() or a no_grad() in '
                    f"objective '{name}'."
                )
            nonzero = _is_nonzero(key, gradients, f'{who} at {", ".join(map(str, taps))}')
            nonzero |= _survives_scaled(loss, leaves)
            if float(loss.detach()) != 0 and (nonzero or not leaves):
                self.alive.add(key)

    def _check_own(
        self, name: str, losses: Mapping[str, Tensor], trace: Trace, objective: Any
    ) -> None:
        leaves = [t for tap in objective.student_taps for t in _leaves(trace.student, tap)]
        learnt = [p for p in objective.parameters() if p.requires_grad]
        if objective.teaches_back:
            learnt += [t for tap in objective.teacher_taps for t in _leaves(trace.teacher, tap)]
        for key, loss in losses.items():
            gradients = gradients_at(loss, [*leaves, *learnt])
            if any(g is not None for g in gradients[: len(leaves)]):
                raise RuntimeError(
                    f'{key} has a gradient in the {objective.learner}, but it is to train '
                    f"objective '{name}' alone. Detach the tensors of its taps."
                )
            found = [g for g in gradients[len(leaves) :] if g is not None]
            if not found:
                raise RuntimeError(f"{key} has no gradient in the parameters of '{name}'.")
            nonzero = _is_nonzero(key, found, f"the parameters of '{name}'")
            if nonzero | _survives_scaled(loss, learnt):
                self.alive.add(key)

    def _conclude(self, name: str, keys: list[str], terms: Mapping[str, Tensor]) -> None:
        """Stop if a term of ``keys`` was zero in every step; ``terms`` are all, for the message."""
        losses = {k: v for k, v in terms.items() if k.startswith(f'kd.{name}.loss')}
        logged = {k.rpartition('.')[2]: v for k, v in terms.items() if k not in losses}
        dead = [key for key in keys if key not in self.alive]
        if dead and self.waited[name] <= PATIENCE:
            counts = ', '.join(f'{k} = {float(v.detach()):.4g}' for k, v in logged.items())
            said = f' The last step logged {counts}.' if counts else ''
            raise RuntimeError(
                f'{", ".join(dead)}: zero, or without a gradient, in all of the first {self.steps} '
                f'steps, so it has no effect.{said} Is the student identical to the teacher, '
                'does the mask select nothing, or is the batch too small for a loss that compares '
                'its images? preflight=False skips this check.'
            )
        values = ', '.join(f'{k} = {float(v.detach()):.4g}' for k, v in losses.items())
        print_log(f"preflight: objective '{name}' is live: {values}", logger='current')


def own_losses(task: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The part of all own losses that belongs to the student, or to a peer."""
    prefix = 'peer.' if who == 'student' else f'peer.{who}.'
    return {k: v for k, v in task.items() if k.startswith(prefix) != (who == 'student')}


def has_ground_truth(samples: list, ignore_index: int = 255) -> bool:
    """Whether any image of the batch has a box or a labelled pixel; True where samples hold
    neither boxes nor label maps."""
    boxes = [sample.gt_instances for sample in samples if 'gt_instances' in sample]
    if boxes:
        return any(len(instances) for instances in boxes)
    labelled = [sample for sample in samples if 'gt_sem_seg' in sample]
    return not labelled or bool((segmentor.labels(labelled) != ignore_index).any())


def ignored(student: nn.Module) -> int:
    """Label of pixels that do not count, of a segmentor's head."""
    if family_of(student) != 'segmentor':
        return 255
    return getattr(segmentor.decode_head(student)[0], 'ignore_index', 255)


def _on_all_ranks(told: bool) -> bool:
    """Whether a batch tells on every rank, so that all of them guard the same steps: gradients of a
    term may pass a SyncBN, which waits for the others."""
    flag = torch.tensor(float(told))
    all_reduce(flag, 'min')
    return bool(flag)


def _is_nonzero(key: str, gradients: Sequence[Tensor | None], where: str) -> bool:
    """Whether any gradient is not zero.

    Raises:
        FloatingPointError: one is not finite.
    """
    found = [g for g in gradients if g is not None]
    if not all(bool(g.isfinite().all()) for g in found):
        raise FloatingPointError(
            f'{key} is finite, but its gradient in {where} is NaN or infinite. '
            'Look for a root or a logarithm of zero in the objective; as a remedy lower its weight '
            'or train without AMP.'
        )
    return any(bool(g.ne(0).any()) for g in found)


def _survives_scaled(loss: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Whether a gradient that may be 0 in float16 is not, where loss scaling keeps it.

    It is asked for on every rank, or on none: SyncBN waits for the others on the way back.
    """
    if not leaves or not in_half(leaves, loss.device.type):
        return False
    found = gradients_at(loss, leaves, LOSS_SCALE)
    return any(g is not None and bool(g.ne(0).any()) for g in found)


def _reaching(
    name: str, losses: Mapping[str, Tensor], objective: Any, students: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The losses that train an objective while the student rests.

    Raises:
        RuntimeError: none does.
    """
    learnt = [p for p in objective.parameters() if p.requires_grad]
    found = {
        key: loss
        for key, loss in losses.items()
        if key not in students or any(g is not None for g in gradients_at(loss, learnt))
    }
    if not found:
        raise RuntimeError(
            f"objective '{name}' trains nothing: the {objective.learner} rests (trains=…), and no "
            f'loss of the objective has a gradient in its own {len(learnt)} parameters. Leave it '
            f'out, or let the {objective.learner} train.'
        )
    return found


def _leaves(side: Side, tap: Any) -> list[Tensor]:
    """Recorded tensors themselves; reading through the Side may cast to a copy."""
    tensors = flatten(side.raw(tap))
    return [t for t in tensors if t.requires_grad]
