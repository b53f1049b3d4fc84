"""Which methods are worth a whole training: short runs, of which the better half goes on.

A probe is the beginning of the run itself, with its schedules, on a part of the training set. The
student's own losses on the rest of that set decide, without ``task_weight``: they have one scale
for all methods, and no image of the validation set is looked at.
"""

from __future__ import annotations

import math
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmengine.config import Config

from mmkd.analysis.short_runs import short_config, train_short
from mmkd.chain.product import done_marker, fingerprint, read_json, write_json
from mmkd.chain.resolving import read_config, set_teacher, settings_of, teacher_entry
from mmkd.chain.stage import Stage
from mmkd.study.entries import Search
from mmkd.study.processes import Task
from mmkd.study.rows import Row

FOLDER = 'search'
#: runs tasks and returns what failed, by name
RunTasks = Callable[[Sequence[Task], Mapping[str, Any]], Mapping[str, str]]


def rounds_of(count: int, keep: int) -> list[int]:
    """How many candidates each round has: all, then the better half, until ``keep`` are left."""
    found = []
    while count > keep:
        found.append(count)
        count = max((count + 1) // 2, keep)
    return found


def search(
    rows: Sequence[Row], given: Search, seed: int, work_dir: str, run_tasks: RunTasks
) -> tuple[list[Row], list[str]]:
    """Successive halving over the rows of a pair that are not refused.

    Args:
        rows (list[Row]): of the methods.
        given (Search): lengths.
        seed (int): of weights, batches and hold-out.
        work_dir (str): of the study.
        run_tasks (callable): trains the probes of a round.

    Returns:
        tuple: the rows, those that are left out refused; and lines for the report.

    Raises:
        ValueError: every probe of a round failed or diverged.
    """
    left = [row for row in rows if not row.refused]
    sizes = rounds_of(len(left), given.keep)
    lines = [
        f'Short runs on {1 - given.hold_out:.0%} of the training set, and the loss of the task on '
        'the rest of it, which was not trained on:',
        '',
        '| round | epochs | method | held-out loss |',
        '|---|---|---|---|',
    ]
    out: dict[str, str] = {}
    for number in range(len(sizes)):
        epochs, longest = given.epochs * 2**number, given.epochs * 2 ** (len(sizes) - 1)
        losses = _round(left, epochs, longest, given, seed, work_dir, run_tasks)
        order = sorted(left, key=lambda row: (losses[row.name], row.name))
        lines += [
            f'| {number + 1} | {epochs} | {row.name} | {_shown(losses[row.name])} |'
            for row in order
        ]
        after = sizes[number + 1] if number + 1 < len(sizes) else given.keep
        kept = [row for row in order[:after] if losses[row.name] < math.inf]
        if not kept:
            raise ValueError(
                f'search: all {len(order)} short runs of {epochs} epochs failed or diverged. Their '
                f'output is in {osp.join(work_dir, FOLDER)}.'
            )
        for row in order:
            if row not in kept:
                out[row.name] = f'left out after {epochs} epoch{"s" * (epochs > 1)} of short runs'
        left = kept
    rows = [replace(r, refused=out[r.name]) if r.name in out else r for r in rows]
    return rows, [*lines, ''] if sizes else []


def _shown(loss: float) -> str:
    return f'{loss:.4f}' if loss < math.inf else 'diverged or failed'


def _round(
    left: Sequence[Row],
    epochs: int,
    longest: int,
    given: Search,
    seed: int,
    work_dir: str,
    run_tasks: RunTasks,
) -> dict[str, float]:
    """The loss of each row; infinite where its probe failed."""
    tasks, probes = [], {}
    for row in left:
        name = f'{row.slug}_e{epochs}'
        probe = dict(stage=row.stage(seed), epochs=epochs, longest=longest, seed=seed)
        probe |= dict(hold_out=given.hold_out)
        known = fingerprint(settings_of(row.read(seed)), {k: str(v) for k, v in probe.items()})
        probes[name] = probe | dict(fingerprint=known)
        if _loss(work_dir, name, known) is None:
            log = osp.join(work_dir, FOLDER, f'{name}.log')
            tasks.append(Task(name, (work_dir, 'probe', name), log))
    failed = run_tasks(tasks, dict(probes=probes)) if tasks else {}
    if failed and len(failed) == len(left):
        raise ValueError(
            f'search: all {len(left)} short runs of {epochs} epochs failed, the first because: '
            f'{next(iter(failed.values()))} Their output is in {osp.join(work_dir, FOLDER)}.'
        )
    found = {}
    for row in left:
        name = f'{row.slug}_e{epochs}'
        loss = _loss(work_dir, name, probes[name]['fingerprint'])
        found[row.name] = math.inf if loss is None or name in failed else loss
    return found


def _loss(work_dir: str, name: str, known: str) -> float | None:
    """Of a finished probe of the same settings; None where there is none."""
    kept = read_json(osp.join(work_dir, FOLDER, f'{name}.json'))
    return kept['loss'] if kept and kept['fingerprint'] == known else None


def probe(work_dir: str, name: str, study: Mapping[str, Any]) -> None:
    """Train one probe, in its process, and keep its loss."""
    given = study['probes'][name]
    config = _with_teacher(given['stage'], work_dir)
    names = list(config.model.objectives)
    folder = osp.join(work_dir, FOLDER)
    own = short_config(config, name, folder, given['hold_out'], given['seed'])
    try:
        loss, _ = train_short(own, given['epochs'], given['longest'], names, given['seed'])
    except FloatingPointError as error:
        print(f'{name} diverged, and loses: {error}')
        loss = math.inf
    kept = dict(loss=loss, fingerprint=given['fingerprint'])
    write_json(osp.join(folder, f'{name}.json'), kept)


def _with_teacher(entry: Mapping[str, Any], work_dir: str) -> Config:
    """The config of a run that learns from a teacher of the study."""
    stage = Stage.read('probe', entry)
    config = read_config(stage, {}, 0)
    for reference in stage.teacher.values():
        folder = osp.join(work_dir, reference.stage)
        made = (done_marker(folder) or {})['product']
        entry = teacher_entry(config, stage, '')
        set_teacher(entry, made['config'], made['checkpoint'], folder)
    return config
