"""Runs as processes of their own, several at a time, each after those that it needs."""

from __future__ import annotations

import multiprocessing
import os
import os.path as osp
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

#: seconds between two looks at the processes
PAUSE = 0.2


@dataclass(frozen=True)
class Task:
    """What one process does.

    Attributes:
        name (str): of the task, unique.
        words (tuple[str, ...]): for :mod:`mmkd.study.worker`.
        log (str): file for what it prints.
        needs (tuple[str, ...]): tasks that must have succeeded; those that are not there have.
    """

    name: str
    words: tuple[str, ...]
    log: str
    needs: tuple[str, ...] = ()


class Process(Protocol):
    """What is asked of a process; ``multiprocessing.Process`` answers."""

    @property
    def exitcode(self) -> int | None: ...

    def terminate(self) -> None: ...

    def join(self) -> None: ...


Start = Callable[[Task, int, int], Process]
Watch = Callable[[Sequence[Task]], None]
Say = Callable[[str], None]


def start(task: Task, slot: int, at_once: int) -> Process:
    """Start the worker of a task.

    Packages are imported once, and the workers are forks of the process that did it.

    Args:
        task (Task): what to do.
        slot (int): which place is free; its GPU is the task's, where there are any.
        at_once (int): how many tasks may run at once, and share the cores.
    """
    # A fork of a process that has looked for GPUs, as mmengine's import does, cannot use them.
    known = () if torch.cuda.is_available() else multiprocessing.get_all_start_methods()
    way = 'forkserver' if 'forkserver' in known else 'spawn'
    context: Any = multiprocessing.get_context(way)
    if way == 'forkserver':
        context.set_forkserver_preload(['mmkd.study.worker'])
    Path(task.log).parent.mkdir(parents=True, exist_ok=True)
    variables = environment(slot, at_once)
    process = context.Process(target=_work, args=(task, variables))
    with _set(variables):  # CUDA reads its own when a spawned process imports mmengine
        process.start()
    return process


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that start within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def environment(slot: int, at_once: int) -> dict[str, str]:
    """Variables by which tasks share cores and GPUs; nothing where one has them all."""
    if at_once == 1:
        return {}
    found = {}
    if 'OMP_NUM_THREADS' not in os.environ:
        found['OMP_NUM_THREADS'] = str(max((os.cpu_count() or 1) // at_once, 1))
    given = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    gpus = given.split(',') if given else [str(i) for i in range(torch.cuda.device_count())]
    if gpus:
        found['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
    return found


def _work(task: Task, variables: dict[str, str]) -> None:
    """In the new process: print into the log, and do the task."""
    log = os.open(task.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, 'a', buffering=1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.update(variables)
    if 'OMP_NUM_THREADS' in os.environ:  # which torch has read before
        torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    import_module('mmkd.study.worker').main(task.words)


def _end_with(parent: Any) -> None:
    """End this process as SIGTERM does, should the study be killed: it could not do so itself."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def run_all(
    tasks: Sequence[Task],
    jobs: int,
    start: Start,
    say: Say,
    watch: Watch = lambda running: None,
    before: Container[str] = (),
) -> dict[str, str]:
    """Run tasks, at most ``jobs`` at once, in their order as far as their needs allow.

    Args:
        watch (callable): gets the running tasks every now and then.
        before (Container[str]): tasks that failed earlier, as those do that need them.

    Returns:
        dict[str, str]: what went wrong, by name of the task; nothing of those that succeeded.
    """
    names, failed, done = {task.name for task in tasks}, {}, set[str]()
    jobs = min(jobs, len(tasks))
    waiting, running = list(tasks), dict[int, tuple[Task, Process, float, int]]()
    try:
        while waiting or running:
            for task in list(waiting):
                bad = next((name for name in task.needs if name in failed or name in before), None)
                if bad:
                    failed[task.name] = f'{bad} failed before'
                    waiting.remove(task)
            ready = [t for t in waiting if not (set(t.needs) & names) - done]
            for slot in [s for s in range(jobs) if s not in running][: len(ready)]:
                task = ready.pop(0)
                waiting.remove(task)
                say(f'{task.name}: started ({len(done) + len(failed)} of {len(tasks)} are over)')
                earlier = osp.getsize(task.log) if osp.isfile(task.log) else 0
                running[slot] = task, start(task, slot, jobs), time.time(), earlier
            for slot, (task, process, began, written) in list(running.items()):
                code = process.exitcode
                if code is None:
                    continue
                del running[slot]
                if code:
                    failed[task.name] = last_error(task.log, code, written)
                    say(f'{task.name}: failed: {failed[task.name]} ({task.log})')
                else:
                    done.add(task.name)
                    say(f'{task.name}: done in {time.time() - began:.0f} s')
            watch([task for task, *_ in running.values()])
            if running:
                time.sleep(PAUSE)
    except BaseException:
        stop([process for _, process, *_ in running.values()])
        raise
    return failed


def stop(processes: Sequence[Process]) -> None:
    """End processes and wait for them, whatever else is being raised."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def last_error(log: str, code: int, start: int = 0) -> str:
    """The first line of the last error in the output of a process.

    Args:
        start (int): bytes in the log that are of earlier processes.
    """
    text = Path(log).read_bytes()[start:].decode(errors='replace') if Path(log).is_file() else ''
    before, found, error = f'\n{text}'.rpartition('\nerror: ')
    if found:
        return error.splitlines()[0]
    said = f'killed by signal {-code}' if code < 0 else f'exit status {code}'
    return f'{said}, without a message'
