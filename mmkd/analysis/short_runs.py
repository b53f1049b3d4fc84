"""Short training runs that are compared by their losses on held-out training images."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from logging import WARNING
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import set_random_seed

from mmkd.checkpoint import atomic_file
from mmkd.checks.finite import task_losses
from mmkd.checks.guard import Guard
from mmkd.distiller import Distiller
from mmkd.engine.launch import build_runner, prepare
from mmkd.engine.runner import Runner
from mmkd.schedule import Progress, Schedule

Route = tuple[int, int]


@dataclass(frozen=True)
class Probe:
    """One route in one round, and its losses on held-out training images.

    Attributes:
        round, epochs (int): number of the round, from 0, and epochs trained in it.
        route (tuple[int, int]): positions of (student, teacher).
        task, term (float): the student's own losses, and the route's times its full weight;
            infinite where training diverged.
    """

    round: int
    route: Route
    epochs: int
    task: float
    term: float

    @property
    def joint(self) -> float:
        return self.task + self.term


@dataclass(frozen=True)
class Prober:
    """Trains probes of one search.

    Attributes:
        config, objective: the run whose beginning a probe is, and the name of its GuidanceRoute.
        work_dir (str): for the logs.
        hold_out (float): share of the training set that is kept away from training.
        seed, longest (int): of weights, batches and hold-out; epochs of the last round.
    """

    config: Config
    objective: str
    work_dir: str
    hold_out: float
    seed: int
    longest: int

    def run(self, number: int, route: Route, epochs: int) -> Probe:
        """Train with one route for some epochs, then compute losses on the held-out part."""
        try:
            task, term = self._losses(route, epochs)
        except FloatingPointError as error:
            text = f'route {route} diverged, and loses: {error}'
            print_log(text, logger='current', level=WARNING)
            task = term = float('inf')
        return Probe(number, route, epochs, task, term)

    def _losses(self, route: Route, epochs: int) -> tuple[float, float]:
        own = self.probe_config(route, epochs)
        names, term = [self.objective], self.objective
        return train_short(own, epochs, self.longest, names, self.seed, term)

    def probe_config(self, route: Route, epochs: int) -> Config:
        """The run with one route, on a part of its training set, and nothing but training."""
        own, name = copy.deepcopy(self.config), f'epochs{epochs}_{route[0]}_{route[1]}'
        own.model.objectives[self.objective].routes = [route]
        return short_config(own, name, self.work_dir, self.hold_out, self.seed)


def short_config(own: Config, name: str, work_dir: str, hold_out: float, seed: int) -> Config:
    """A run on a part of its training set, and nothing but training; it changes ``own``.

    Args:
        own (Config): of the whole run.
        name (str): of the experiment, and of its folder in ``work_dir``.
        hold_out (float): share of the training set that is kept away from training.
        seed (int): of weights, batches and hold-out.
    """
    if isinstance(own.model.get('preflight'), dict):
        own.model.preflight.pop('score', None)  # of validation samples
    for split in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            own[f'{split}_{part}'] = None
    own.default_hooks = dict(own.get('default_hooks') or {}, checkpoint=None)
    own.randomness = dict(own.get('randomness') or {}, seed=seed)
    own.experiment_name, own.resume = name, False
    prepare(own, work_dir=str(Path(work_dir) / name))
    own.train_dataloader.dataset = dict(
        type='mmkd.HoldOut',
        dataset=own.train_dataloader.dataset,
        share=hold_out,
        seed=seed,
        held=False,
    )
    return own


def train_short(
    own: Config,
    epochs: int,
    longest: int,
    names: Sequence[str],
    seed: int,
    term: str | None = None,
) -> tuple[float, float]:
    """Train the beginning of a run, then compute losses on the part that is held out.

    Args:
        own (Config): of :func:`short_config`.
        epochs, longest (int): of this run, and of the longest one that it is compared with.
        names (list[str]): objectives of which one has to teach.
        seed (int): of the draws of the pipeline, for the losses.
        term (str | None): objective whose term is wanted, see :func:`held_out_losses`.

    Returns:
        tuple[float, float]: the task's loss and the term.

    Raises:
        FloatingPointError: it diverged.
        ValueError: see :class:`Length`.
    """
    runner = build_runner(own)
    runner.register_hook(Length(epochs, longest, names))
    runner.train()
    loader = copy.deepcopy(own.train_dataloader)
    loader.dataset.held = True
    loader.update(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
    for key in ('batch_sampler', 'persistent_workers', 'num_batch_per_epoch'):
        loader.pop(key, None)
    batches = Runner.build_dataloader(loader, seed=seed)
    return held_out_losses(runner.model, batches, term, seed)


@torch.no_grad()
def held_out_losses(
    model: Distiller, batches: Iterable, name: str | None, seed: int
) -> tuple[float, float]:
    """Mean task loss and weighted term of objective ``name`` over the images of ``batches``.

    Without a name the term is 0, no teacher runs, and the task counts as in plain training,
    whatever ``task_weight`` is: such losses of different methods can be compared.
    """
    if name is None:
        model.task_weight = 1.0
    for key, objective in model.objectives.items():
        objective.weight = Schedule(objective.weight.value if key == name else 0)
    model.guard = Guard.of(False)
    model.eval()
    set_random_seed(seed)  # the same crops and flips for every route
    sums, images = torch.zeros(2, dtype=torch.float64), 0
    for batch in batches:
        data = model.data_preprocessor(batch, True)
        losses = model(**data, mode='loss')
        task = {key: value for key, value in losses.items() if not key.startswith('kd.')}
        own = {key: value for key, value in losses.items() if key.startswith(f'kd.{name}.loss')}
        count = len(data['data_samples'])
        sums += count * torch.tensor([_total(task), _total(own)], dtype=torch.float64)
        images += count
    if not bool(sums.isfinite().all()):
        raise FloatingPointError(f'a held-out loss of objective {name!r} is not finite: {sums}.')
    return tuple((sums / images).tolist())


def _total(losses: dict[str, Any]) -> float:
    """As mmengine adds them up."""
    return sum(float(value.mean()) for _, value in task_losses(losses))


class Length(Hook):
    """Ends a run after some epochs; its schedules are those of the whole.

    Args:
        epochs, longest (int): of this run and of the last round, which must fit into the whole.
        names (list[str]): objectives, of which the weight of one must be above 0 at some step
            before.

    Raises:
        ValueError: see the arguments.
    """

    def __init__(self, epochs: int, longest: int, names: Sequence[str]) -> None:
        self.epochs, self.longest, self.names, self.steps = epochs, longest, names, 0

    def before_train(self, runner: Any) -> None:
        total, each = runner.max_iters, len(runner.train_dataloader)
        if self.longest * each > total:
            raise ValueError(
                f'The last round trains {self.longest} epochs of {each} steps, but the whole run '
                f'has {total} steps. Lower --epochs.'
            )
        self.steps = self.epochs * each
        weights = [runner.model.objectives[name].weight for name in self.names]
        if not any(w(Progress(step, total)) for w in weights for step in range(self.steps)):
            shown = ', '.join(map(repr, self.names))
            raise ValueError(
                f'The weight of objective {shown} is 0 in all {self.steps} steps of a probe, '
                'so probes cannot differ. Raise --epochs, or let the weight start earlier.'
            )

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 >= self.steps:
            runner.train_loop.stop_training = True


class ProbeLog:
    """Finished probes of one search, kept in a JSON file.

    Raises:
        ValueError: the file is that of another search.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.probes: dict[tuple[int, Route], Probe] = {}
        if not path.is_file():
            return
        kept = json.loads(path.read_text())
        changed = [key for key in settings if kept['settings'].get(key) != settings[key]]
        if changed:
            raise ValueError(
                f'{path} holds probes of another search, which differs in {", ".join(changed)}. '
                'Give another --work-dir, or delete the file.'
            )
        for entry in kept['probes']:
            probe = Probe(**entry | dict(route=tuple(entry['route'])))
            self.probes[probe.round, probe.route] = probe

    def find(self, number: int, route: Route) -> Probe | None:
        return self.probes.get((number, route))

    def add(self, probe: Probe) -> None:
        """Keep a probe, also when the process is killed right after."""
        self.probes[probe.round, probe.route] = probe
        entries = [asdict(one) for one in self.probes.values()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(str(self.path)) as part:
            kept = dict(settings=self.settings, probes=entries)
            Path(part).write_text(json.dumps(kept, indent=1))
