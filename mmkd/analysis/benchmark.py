"""Cost of a distilled step relative to the least possible cost, measured side by side."""

from __future__ import annotations

import copy
import functools
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mmkd.analysis.batches import random_batch
from mmkd.config import distils
from mmkd.distiller import Distiller
from mmkd.registry import MODELS
from mmkd.route import run_route
from mmkd.schedule import Schedule
from mmkd.teacher import Teacher, parts_of
from mmkd.teachers import frozen_networks
from mmkd.teachers.untrained import untrain

#: kinds of teacher to compare, as options of its config
TEACHERS: dict[str, dict[str, Any]] = dict(
    plain={},
    bf16=dict(dtype='bf16'),
    fp16=dict(dtype='fp16'),
    fused=dict(fuse_conv_bn=True),
    channels_last=dict(memory_format='channels_last'),
    fast=dict(fast=True),
    compile=dict(compile=True),
    fast_compile=dict(fast=True, compile=True),
    stream=dict(stream=True),
)


@dataclass
class Cost:
    """Time and memory of one kind of step.

    Attributes:
        seconds (float): median.
        ratio (float): median of the ratios to its floor in the same round.
        quartiles (tuple[float, float]): first and third quartile of the seconds.
        fastest (float): its fastest run over the floor's fastest: on a machine that others slow
            down now and then the steadier number.
        processor (float): like ``ratio``, of the processor's seconds: work of others counts less.
        peak (int): most bytes held at a time.
        peak_ratio (float): to its floor's.
    """

    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    fastest: float
    processor: float
    peak: int
    peak_ratio: float


def benchmark_step(
    configs: Mapping[str, Config],
    size: tuple[int, int] = (256, 256),
    batch: int = 2,
    rounds: int = 7,
    boxes: int = 8,
    teachers: Sequence[str] = ('plain',),
    device: str | None = None,
    amp: bool = False,
) -> dict[str, Cost]:
    """Time several kinds of step in turn, in one process, on a random batch.

    ``plain`` is the student's own step (forward, backward, SGD); a ``floor`` is that, a bare
    float32 teacher forward as far as a config needs (to the taps, and of the heads that objectives
    ask about the student's regions or about all places), and forward and backward of its peers;
    then the distilled step of each config.

    Args:
        configs (dict[str, Config]): distillation runs of one student and one teacher, by name;
            weights are random, schedules at their full value, and no data is read.
        size (tuple[int, int]): height and width of the batch.
        batch, rounds, boxes (int): images, measured rounds, ground-truth boxes an image.
        teachers (Sequence[str]): keys of :data:`TEACHERS`, each a row of every config; the floors'
            teachers are plain ones.
        device (str | None): ``'cpu'`` or ``'cuda'``; a GPU where there is one.
        amp (bool): all steps under autocast, fp16 on a GPU and bf16 on a CPU.

    Raises:
        ValueError: no distillation config, or students or teachers that differ.
    """
    configs = {name: copy.deepcopy(config) for name, config in configs.items()}
    for config in configs.values():
        if distils(config.model):
            untrain(config.model)
    _check_comparable(configs)
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    steps: dict[str, Callable[[], None]] = {}
    floors: dict[str, str] = {}
    data: tuple[Tensor, list] | None = None
    for name, config in _rows(configs, teachers).items():
        init_default_scope(config.get('default_scope') or 'mmengine')
        torch.manual_seed(0)  # equal weights: a detector has to do what it proposes
        distiller = _distiller(config).to(device)
        data = data or random_batch(distiller.student, size, batch, boxes, device)
        step, bare = _distilled_step(distiller, *data), _bare_teachers(config, distiller)
        asked = _answers(distiller, bare, step)
        parts = [teacher.route for teacher in bare] + sorted({part for part, _ in asked})
        parts += [f'peer {name}' for name in distiller.peers]
        floors[name] = f'floor ({", ".join(parts)})'
        steps.setdefault('plain', _plain_step(distiller, *data))
        floor = _floor_step(bare, asked, distiller, steps['plain'], *data)
        steps.setdefault(floors[name], floor)
        steps[name] = step
    floors['plain'] = next(iter(floors.values()))
    with torch.autocast(device, enabled=amp):
        return measure(steps, rounds, floors)


def _rows(configs: Mapping[str, Config], teachers: Sequence[str]) -> dict[str, Config]:
    """Each config with each kind of teacher, by the name of its row."""
    rows = {}
    for name, config in configs.items():
        for kind in teachers:
            row = copy.deepcopy(config)
            for entry in _teacher_entries(row.model):
                entry.update(TEACHERS[kind])
            rows[name if kind == 'plain' else f'{name}, teacher {kind}'] = row
    return rows


def _check_comparable(configs: Mapping[str, Config]) -> None:
    """Ratios to a common floor need a common student and teacher."""
    first: tuple[str, tuple] | None = None
    for name, config in configs.items():
        model = config.model
        if not distils(model):
            raise ValueError(
                'benchmark step needs a distillation config (model.type mmkd.Distiller).'
            )
        teachers = [entry['config'] for entry in _teacher_entries(model)]
        pair = (_shape(model.student), teachers, _shape(model.get('peers') or {}))
        first = first or (name, pair)
        if pair != first[1]:
            raise ValueError(
                f'benchmark step compares configs of one student and one teacher, but {first[0]} '
                f'and {name} differ in them. Measure them one by one.'
            )


def _shape(config: Any) -> Any:
    """A model's config without where its weights come from."""
    if isinstance(config, Mapping):
        return {key: _shape(value) for key, value in config.items() if key != 'init_cfg'}
    return [_shape(item) for item in config] if isinstance(config, (list, tuple)) else config


def _update(distiller: Distiller) -> Callable[[dict[str, Any]], None]:
    optimiser = torch.optim.SGD(distiller.parameters(), lr=1e-6)

    def update(losses: dict[str, Any]) -> None:
        loss, _ = distiller.parse_losses(losses)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()  # here, so that every step starts without gradients

    return update


def _plain_step(distiller: Distiller, inputs: Tensor, samples: list) -> Callable[[], None]:
    update = _update(distiller)
    return lambda: update(distiller.student(inputs, samples, mode='loss'))


def _distilled_step(distiller: Distiller, inputs: Tensor, samples: list) -> Callable[[], None]:
    update = _update(distiller)
    return lambda: update(distiller(inputs, samples, mode='loss'))


def _floor_step(
    teachers: list[Teacher],
    answers: list[tuple[str, Callable[[], Any]]],
    distiller: Distiller,
    plain: Callable[[], None],
    inputs: Tensor,
    samples: list,
) -> Callable[[], None]:
    def floor() -> None:
        with torch.no_grad():
            for teacher in teachers:
                run_route(teacher.model, teacher.route, inputs, samples)
            for _, answer in answers:
                answer()
        for peer in distiller.peers.values():
            losses = peer(inputs, samples, mode='loss')
            distiller.parse_losses(losses)[0].backward()
        plain()

    return floor


def _answers(
    distiller: Distiller, bare: list[Teacher], step: Callable[[], None]
) -> list[tuple[str, Callable[[], Any]]]:
    """What objectives let their teachers' heads compute in one step, without gradients, beside the
    route: the head, and the same call of the bare teacher's module."""
    found: list[tuple[str, Callable[[], Any]]] = []
    running: list[Any] = []  # the objective, then the module of its teacher that it has called
    hooks: list[Any] = []  # only while an objective runs, so that a compiled route has none

    def before(own: nn.Module, args: tuple, kwargs: dict, name: str, module: nn.Module) -> None:
        if len(running) == 1 and not torch.is_grad_enabled():
            args, kwargs = tree_map(_full, (args, kwargs))
            found.append((name.partition('.')[0], lambda: module(*args, **kwargs)))
        if running:
            running.append(own)

    def after(*_: Any) -> None:
        if running:
            running.pop()

    def enter(objective: nn.Module, _: Any) -> None:
        running.append(objective)
        for listening, teacher in zip(parts_of(distiller.teachers).values(), bare, strict=True):
            others = dict(teacher.model.named_modules())
            for name, own in listening.model.named_modules():
                hook = functools.partial(before, name=name, module=others[name])
                hooks.append(own.register_forward_pre_hook(hook, with_kwargs=True))
                hooks.append(own.register_forward_hook(after))

    def leave(*_: Any) -> None:
        running.clear()
        while hooks:
            hooks.pop().remove()

    handles = [
        handle
        for objective in distiller.objectives.values()
        for handle in (
            objective.register_forward_pre_hook(enter),
            objective.register_forward_hook(leave),
        )
    ]
    step()
    for handle in handles:
        handle.remove()
    return found


def _full(x: Any) -> Any:
    """In float32, as bare teachers compute."""
    return x.detach().float() if isinstance(x, Tensor) and x.is_floating_point() else x


def measure(
    steps: Mapping[str, Callable[[], None]], rounds: int, floors: Mapping[str, str]
) -> dict[str, Cost]:
    """Interleave the steps, rotating which one goes first; ratios are taken within a round.

    Args:
        steps (dict[str, callable]): what to time.
        rounds (int): how often, after two runs that warm up.
        floors (dict[str, str]): which step each one is compared with; itself if not named.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    worked: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for step in steps.values():
        step()  # warm-up: allocators, kernels, the recorder's first look
        step()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = _clock(steps[name])
            seconds[name].append(taken[0])
            worked[name].append(taken[1])
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    result = {}
    for name in names:
        floor = floors.get(name, name)
        ratios, processor = (
            sorted(a / b for a, b in zip(clock[name], clock[floor], strict=True))
            for clock in (seconds, worked)
        )
        result[name] = Cost(
            statistics.median(seconds[name]),
            statistics.median(ratios),
            (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]),
            min(seconds[name]) / min(seconds[floor]),
            statistics.median(processor),
            peaks[name],
            peaks[name] / max(peaks[floor], 1),
        )
    return result


def _clock(step: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and those of the processor."""
    torch.manual_seed(0)  # samplers of RoIs draw alike
    np.random.seed(0)
    _wait()
    start, worked = time.perf_counter(), time.process_time()
    step()
    _wait()
    return time.perf_counter() - start, time.process_time() - worked


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes(step: Callable[[], None]) -> int:
    """Most bytes that one step holds at a time, above what it starts with."""
    if torch.cuda.is_available():
        _wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        _wait()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')  # errors only: not when the profiler begins
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    held = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == '[memory]'), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _distiller(config: Config) -> Distiller:
    model = config.model
    model.preflight = False
    distiller = MODELS.build(model).train()
    for objective in distiller.objectives.values():
        objective.weight = Schedule(objective.weight.value)  # a warm-up would leave its work out
    return distiller


def _teacher_entries(model: Any) -> list[Any]:
    return list(frozen_networks(model.get('teacher')).values())


def _bare_teachers(config: Config, distiller: Distiller) -> list[Teacher]:
    """The same networks in float32, on the routes that the taps need."""
    device = next(distiller.parameters()).device
    teachers, entries = [], frozen_networks(config.model.get('teacher'))
    for name, listening in parts_of(distiller.teachers).items():
        bare, entry = listening, entries.get(name, {})
        if any(entry.get(option) for kind in TEACHERS.values() for option in kind):
            bare = Teacher(entry['config'], 'random', cfg_options=entry.get('cfg_options'))
            bare.set_taps(listening.recorder.taps.values() if listening.recorder else ())
        teachers.append(bare.to(device))
    return teachers


def report(costs: Mapping[str, Cost]) -> str:
    """A markdown table."""
    lines = [
        '| step | seconds | x floor (quartiles) | fastest x floor | processor x floor | peak MiB | '
        'x floor |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, cost in costs.items():
        low, high = cost.quartiles
        lines.append(
            f'| {name} | {cost.seconds:.3f} | {cost.ratio:.3f} ({low:.3f} to {high:.3f}) | '
            f'{cost.fastest:.3f} | {cost.processor:.3f} | {cost.peak / 2**20:.0f} | '
            f'{cost.peak_ratio:.3f} |'
        )
    return '\n'.join(lines)
