"""ONE: a gated ensemble of a classifier and copies of its last stage teaches all of its members."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import exp
from typing import Any

import torch
from mmengine.model import initialize
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.families.comparable import Misfit, named
from mmkd.functional.logit_distances import soft_kl
from mmkd.levels import Level
from mmkd.models.image_classifier import soft_or_hard_target
from mmkd.objective import Objective
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows.exits import cross_entropies
from mmkd.rows.logits import bind_images
from mmkd.tap import Tap, Trace, parse_taps
from mmkd.untouched import at_rest, untouched_random_state


def ensemble(logits: Sequence[Tensor], gates: Tensor) -> Tensor:
    """``z_e = sum_i g_i z_i``, (N, K), of logits (N, K) of M branches and gates (N, M)."""
    return (torch.stack(list(logits), 1) * gates[:, :, None]).sum(1)


def ramp(done: float) -> float:
    """``exp(-5 (1 - done)^2)``, 1 from ``done = 1`` on."""
    return exp(-5 * (1 - min(done, 1.0)) ** 2)


class Gate(nn.Module):
    """``softmax(ReLU(BN(FC(pool(x)))))``: a map (N, C, H, W) -> gates (N, M)."""

    def __init__(self, in_channels: int, branches: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, branches)
        self.bn = nn.BatchNorm1d(branches)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.fc(x.mean((2, 3)))
        if self.training and len(scores) == 1:  # one image has no statistics: those of the run
            bn = self.bn
            fixed = bn.running_mean, bn.running_var, bn.weight, bn.bias
            return F.batch_norm(scores, *fixed, eps=bn.eps).relu().softmax(1)
        return self.bn(scores).relu().softmax(1)


@MODELS.register_module()
class ONE(Objective):
    """Knowledge distillation by on-the-fly native ensemble.

    Lan et al., NeurIPS 2018, and their code Lan1991Xu/ONE_NeurIPS2018. The network is the
    first branch; each other one is a copy of its last stage and head with random weights of its
    own, behind the same map. A gate on that map weighs the logits of all branches, and
    their sum z_e, which learns from labels, teaches each of them:
    ``sum_i CE_i + CE_e + w(t) tau^2 sum_i KL(p_e || p_i)``, where CE_0 is the student's own loss
    and w(t) rises as ``exp(-5 (1 - t)^2)``. The target gets no gradient from the divergence.
    Branches and gate are saved under ``objectives.``; the student is a plain one.

    Args:
        branches (int): of the ensemble, the network itself among them.
        stage (str | None): the last stage of the backbone, by its path, where it is not known.
        tau (float): temperature.
        gate (str): ``'learnt'``, or ``'uniform'`` for the mean of the logits.
        rise (float): fraction of the run after which w(t) is 1; the paper's 80 of 300 epochs.
        weight, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no classifier, or a single class; a stage that is not the
            last, or behind which the network does what a copy cannot.
    """

    needs_teacher = False
    zero_at_equality = False
    families = ('classifier',)
    scheduled = ('tau',)

    def __init__(
        self,
        weight: Any = None,
        branches: int = 3,
        stage: str | None = None,
        tau: float = 3.0,
        gate: str = 'learnt',
        rise: float = 80 / 300,
        learner: str = 'student',
    ) -> None:
        super().__init__(weight=weight, learner=learner)
        self.count = check_number('ONE', 'branches', branches, 2, whole=True)
        self.stage, self.tau = stage, check_temperature('ONE', tau)
        self.kind = check_choice('ONE', 'gate', gate, ('learnt', 'uniform'))
        self.rise = check_number('ONE', 'rise', rise, above=0, most=1)
        self.classes = 0
        self.gate: Gate | None = None
        self.branches = nn.ModuleList()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        bind_images(self, student, None)
        self.classes = int(student.head.fc.out_features)
        stage = _last_stage(student, self.stage)
        self.student_taps = parse_taps([f'{stage}@in[0]', classifier.LOGITS])
        with untouched_random_state():
            tail = _tail(student, stage, self.student_taps)
            self.branches = nn.ModuleList(_branch(student, tail) for _ in range(1, self.count))

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not student:
            raise ValueError(
                f"ONE: the map that enters the last stage, '{self.student_taps[0]}', could not be "
                'probed, so that its gate has no width; name the last stage (stage=).'
            )
        if self.kind == 'learnt':
            self.gate = Gate(student[0].channels, self.count)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        shared, own = (trace.student[tap][0] for tap in self.student_taps)
        logits = [own, *(branch(shared) for branch in self.branches)]
        gates = shared.new_full((len(own), self.count), 1 / self.count)
        if self.gate is not None:
            gates = self.gate(shared)
        together = ensemble(logits, gates)
        target = soft_or_hard_target(trace.samples, self.classes, own.device)
        hard = cross_entropies(trace, [*logits[1:], together], target)
        soft = [soft_kl(z, together.detach(), self.tau).mean() for z in logits]
        rise = ramp(float(trace.progress) / self.rise)
        mean = {f'gate_{i}': g for i, g in enumerate(gates.detach().mean(0))}
        return {'loss_ce': sum(hard), 'loss_kd': rise * sum(soft), **mean}

    def describe(self) -> list[str]:
        """The copies and their sizes."""
        size = sum(p.numel() for p in self.branches.parameters())
        return [f'{self.count - 1} copies of the last stage and head, {size:,} parameters']


def _last_stage(student: nn.Module, stage: str | None) -> str:
    """Path of the last stage, which ``stage`` may name where it is not known."""
    try:
        known = classifier.stage_taps(student)
    except ValueError:
        if stage is None:
            raise
        return stage
    if stage is not None and stage not in (known[-1], known[-1].removeprefix('backbone.')):
        raise Misfit(
            f'ONE copies the last stage, {known[-1]}, but stage={stage!r}; the stages are '
            f'{", ".join(known)}. Leave it out.'
        )
    return known[-1]


def _tail(student: nn.Module, stage: str, taps: Sequence[Tap]) -> list[nn.Module]:
    """Modules from the last stage to the logits, as the network calls them.

    Raises:
        Misfit: it does something else behind the stage.
    """
    side = classifier.shown(student, taps)
    children = [f'backbone.{name}' for name, _ in student.backbone.named_children()]
    later = children[children.index(stage) + 1 :] if stage in children else []
    head = [getattr(student, 'projector', None), classifier_pool(student), student.head.fc]
    for rest in ([], [student.get_submodule(name) for name in later]):
        tail = [m for m in (student.get_submodule(stage), *rest, *head) if m is not None]
        if _same(tail, side[taps[0]][0], side[taps[1]][0]):
            return tail
    raise Misfit(
        f'ONE copies the last stage and the head, but behind {stage} a {named(student)} on '
        f'{type(student.backbone).__name__} does something else; use a ResNet.'
    )


def classifier_pool(student: nn.Module) -> nn.Module:
    """Global average pooling, (N, C, H, W) -> (N, C)."""
    pool = getattr(student, 'pool', None)
    if isinstance(pool, nn.Module):
        return pool
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _same(tail: Sequence[nn.Module], x: Tensor, wanted: Tensor) -> bool:
    chain = nn.Sequential(*tail)
    try:
        with at_rest(chain):
            x = chain(x)
    except (RuntimeError, TypeError):
        return False
    return x.shape == wanted.shape and torch.allclose(x.float(), wanted, rtol=1e-4, atol=1e-5)


def _branch(student: nn.Module, tail: Sequence[nn.Module]) -> nn.Module:
    """A copy of the tail with random weights, drawn by the initialisation of the network."""
    parts = [copy.deepcopy(part) for part in tail]
    for part in parts:
        part.requires_grad_(True)
        for module in part.modules():
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()
    for owner, chosen in ((student.backbone, parts[:-1]), (student.head, parts[-1:])):
        inits = getattr(owner, 'init_cfg', None) or []
        inits = [inits] if isinstance(inits, dict) else inits
        layers = [dict(one) for one in inits if 'layer' in one and 'override' not in one]
        for part in chosen if layers else ():
            initialize(part, copy.deepcopy(layers))
    return nn.Sequential(*parts)
