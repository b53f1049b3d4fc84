"""The end of a run: checkpoints, scores, cost, and the next command."""

from __future__ import annotations

import os.path as osp
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import CheckpointHook

from mmkd.borrowed import unwrapped
from mmkd.checks.preflight import PreflightHook
from mmkd.engine.console import lines
from mmkd.engine.overhead import OverheadHook
from mmkd.errors.origin import short
from mmkd.plan.freezing import behind
from mmkd.started import sibling


def find_hook(runner: Any, kind: type) -> Any:
    """The first hook of a kind, or None."""
    return next((hook for hook in runner.hooks if isinstance(hook, kind)), None)


def teachers(runner: Any) -> dict[str, dict[str, float]]:
    """Metrics of each teacher that the preflight has scored."""
    hook = find_hook(runner, PreflightHook)
    return hook.scores if hook else {}


def deciding(runner: Any) -> list[str]:
    """The metrics that decide which checkpoint is the best; none before the first validation."""
    keys = getattr(find_hook(runner, CheckpointHook), 'key_indicators', None) or []
    return [key for key in keys if key != 'auto']


def bests(runner: Any) -> dict[str, tuple[str, float]]:
    """The best checkpoint by each metric so far, and its score."""
    info, keys = runner.message_hub.runtime_info, deciding(runner)
    ends = [''] if len(keys) == 1 else [f'_{key}' for key in keys]
    return {
        key: (info[f'best_ckpt{end}'], info[f'best_score{end}'])
        for key, end in zip(keys, ends, strict=True)
        if info.get(f'best_ckpt{end}')
    }


def summary(runner: Any, scores: Mapping[str, float], took: float) -> list[tuple[str, str]]:
    """Names and texts of the last lines.

    Args:
        scores (Mapping[str, float]): of the last validation.
        took (float): seconds.
    """
    info, best = runner.message_hub.runtime_info, bests(runner)
    main = lines.main_metric(deciding(runner), scores)
    last = info.get('last_ckpt')
    rows = [('done', f'{runner.iter} of {runner.max_iters} steps, {lines.duration(took)}')]
    for key, (path, score) in best.items():
        rows.append(('best', f'{lines.score(key, score)}  {short(path)}'))
    if last:
        scored = f'{lines.score(main, scores[main])}  ' if main in scores else ''
        rows.append(('last', f'{scored}{short(last)}'))
    for name, found in teachers(runner).items():
        rows += [(name, lines.score(main, found[main]))] if main in found else []
    for name, (reached, path) in _beside(runner).items():
        scored = f'{lines.score(main, reached[main])}  ' if main in reached else ''
        rows.append((name, f'{scored}{short(path)}' if path else scored))
    cost = find_hook(runner, OverheadHook)
    rows.append(('cost', cost.measured.removeprefix('cost: ') if cost else ''))
    wanted = [*(path for path, _ in best.values()), last][0]
    return [*rows, ('next', ' '.join(_next(runner, wanted)))]


def _beside(runner: Any) -> dict[str, tuple[Mapping[str, float], str]]:
    """What was trained in other groups of processes: scores and checkpoint."""
    model = unwrapped(getattr(runner, 'model', None))
    named = (getattr(model, 'teachers', None) or {}).values()
    return {name: one for teacher in named for name, one in teacher.beside.items()}


def _next(runner: Any, checkpoint: str | None) -> Iterator[str]:
    """The command that scores a checkpoint, with the config that mmengine has written.

    A network that cannot be scored yet is a start for the run that trains the rest of it.
    """
    lacks = _lacks(runner) if checkpoint else ''
    if checkpoint and lacks:
        yield f'{lacks}: start its training on the task with'
        yield f'--cfg-options load_from={short(checkpoint)}'
        return
    name = osp.basename(runner.cfg.filename or f'{runner.timestamp}.py')
    config = osp.join(runner.work_dir, name)
    if checkpoint and runner.cfg.get('test_dataloader') and osp.isfile(config):
        yield from (*sibling(sys.argv, 'test'), short(config), short(checkpoint))


def _lacks(runner: Any) -> str:
    """What the student has not learnt in this run, nor brought along, and the metrics score."""
    model = unwrapped(runner.model)
    plan = getattr(model, 'plan', None)
    if plan is None or runner.cfg.get('load_from'):
        return ''
    if 'student' not in plan.trains:
        return 'the student has not been trained'
    evaluator = getattr(getattr(runner, 'val_loop', None), 'evaluator', None)
    metrics = getattr(evaluator, 'metrics', [])
    if not plan.untaught or (metrics and not any(getattr(m, 'of_head', True) for m in metrics)):
        return ''
    return f"the student's {', '.join(behind(plan.untaught))} has not been trained"
