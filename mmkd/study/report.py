"""The table of a study as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import os.path as osp
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mmkd.analysis.prediction_cost import PARAMETERS
from mmkd.study.costs import ORDER
from mmkd.study.results import PairResults, Result, Summary
from mmkd.study.rows import TEACHER

HEAD = (
    '{metric}, seeds {seeds}',
    'mean ± std',
    'gain on plain ± std',
    'share of the gap',
    'parameters saved',
    'behind the teacher',
    'better than plain',
    'step',
    'memory',
    'minutes',
)


def report(
    pairs: Sequence[PairResults], seeds: Sequence[int], work_dir: str, how: Mapping[str, Any]
) -> str:
    """The whole page.

    Args:
        pairs (list): tables.
        seeds (list[int]): of the study.
        work_dir (str): of the study.
        how (dict): ``command``, that repeats the study; ``jobs``; ``device``; ``left_out``, lines
            on methods that a search has left out.
    """
    lines = [f'# {osp.basename(osp.abspath(work_dir))}', '', f'Made by `{how["command"]}`.', '']
    for pair in pairs:
        if pair.rows.pair.name:
            lines += [f'## {pair.rows.pair.name}', '']
        lines += [*table(pair, seeds), '', *costs(pair), *notes(pair)]
    lines += [*how.get('left_out', ()), *legend(pairs, seeds, how), '']
    lines += ['![Curves and scores](report.png)', '', '## Commands', '']
    lines += ['Each trains one run without the study.', '', '```bash']
    for pair in pairs:
        for row in pair.rows.trained():
            own = row.seeds(seeds)
            lines += [f'# {row.name}', *(pair.rows.command(row, seed, work_dir) for seed in own)]
    return '\n'.join([*lines, '```', ''])


def table(pair: PairResults, seeds: Sequence[int]) -> list[str]:
    """Scores, gains, indices and costs of training, a line for each row."""
    shown = ' / '.join(map(str, seeds))
    unit = f'{pair.metric}{" (%)" if pair.factor != 1 else ""}'
    lines = [_line(['', *(h.format(metric=unit, seeds=shown) for h in HEAD)])]
    lines.append('|---' * (len(HEAD) + 1) + '|')
    for one, found in pair.summaries():
        if one.problem and not found.scores:
            lines.append(_line([one.row.name, one.problem, *[''] * (len(HEAD) - 1)]))
            continue
        lines.append(_line([one.row.name, *_cells(pair, one, found, seeds)]))
    return lines


def _cells(pair: PairResults, one: Result, found: Summary, seeds: Sequence[int]) -> list[str]:
    own, form = one.row.seeds(seeds), f'.{pair.digits}f'
    scores = ' / '.join(_number(found.scores.get(seed, math.nan), form, '–') for seed in own)
    if one.problem:
        scores += f' ({one.problem})'
    return [
        scores,
        _with_deviation(found.mean, found.std, form),
        _with_deviation(found.gain, found.gain_std, f'+{form}'),
        _percent(found.share),
        _percent(saved(pair, one)),
        _percent(found.behind),
        _percent(found.better, '+.1f'),
        _number(found.step, '.2f'),
        _number(found.memory, '.2f'),
        _number(found.minutes, '.1f'),
    ]


def saved(pair: PairResults, one: Result) -> float:
    """Share of the teacher's parameters that the student does not have."""
    sizes = [pair.costs.get(who, {}).get(PARAMETERS, math.nan) for who in ('student', 'teacher')]
    return math.nan if one.row.kind == TEACHER else 1 - sizes[0] / sizes[1]


def screen(pair: PairResults) -> list[str]:
    """The table in brief, for a terminal."""
    head = [pair.rows.pair.name, pair.metric, 'gain', 'of the gap', 'step', 'memory', 'minutes']
    form = f'.{pair.digits}f'
    rows = [(head, '')]
    rows += [(_brief(one, found, form), one.problem) for one, found in pair.summaries()]
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)]
    lines = []
    for (name, *cells), problem in rows:
        words = [name.ljust(widths[0])]
        if any(cells) or not problem:
            words += [text.rjust(width) for text, width in zip(cells, widths[1:], strict=True)]
        lines.append('  '.join([*words, problem]).rstrip())
    return [*lines, *_costs_in_words(pair)]


def _brief(one: Result, found: Summary, form: str) -> list[str]:
    return [
        one.row.name,
        _with_deviation(found.mean, found.std, form),
        _with_deviation(found.gain, found.gain_std, f'+{form}'),
        _percent(found.share),
        _times(found.step),
        _times(found.memory),
        _number(found.minutes, '.1f'),
    ]


def _costs_in_words(pair: PairResults) -> list[str]:
    units = [key.rpartition(' (') for key in ORDER]
    lines = []
    for who, values in _costs_of(pair):
        words = [
            f'{value} {unit.rstrip(")")} {name}'
            for value, (name, _, unit) in zip(values, units, strict=True)
        ]
        lines.append(f'{who}: {", ".join(words)}')
    return [''] * bool(lines) + lines


def costs(pair: PairResults) -> list[str]:
    """Of predictions: parameters, MACs, latency, file size."""
    if not pair.costs:
        return []
    lines = [_line(['prediction', *ORDER]), '|---' * (len(ORDER) + 1) + '|']
    lines += [_line([who, *values]) for who, values in _costs_of(pair)]
    return [*lines, '', ' '.join(pair.notes), '']


def _costs_of(pair: PairResults) -> list[tuple[str, list[str]]]:
    """The networks whose costs are known, and these, in their order."""
    return [
        (who, [_cost(pair.costs[who].get(key, math.nan)) for key in ORDER])
        for who in ('teacher', 'student')
        if who in pair.costs
    ]


def notes(pair: PairResults) -> list[str]:
    """What rows differ in beside their method, and what went wrong in some of their runs."""
    found = [f'- {one.row.name}: {note}.' for one in pair.results for note in one.row.notes]
    return [*found, *([''] * bool(found))]


def legend(pairs: Sequence[PairResults], seeds: Sequence[int], how: Mapping[str, Any]) -> list[str]:
    """How to read the table."""
    jobs = how['jobs']
    falling = ', '.join(dict.fromkeys(pair.metric for pair in pairs if pair.lower))
    lines = [f'- Of {falling} less is better, so gains are reductions.'] * bool(falling)
    lines += [
        '- The last checkpoint counts; nothing was selected on the validation set.',
        '- Gains are over the plain run of the same seed: the same command with all weights at 0.',
        '- Share of the gap: mean gain over the distance from the plain students to the teacher.',
        "- Parameters saved, behind the teacher, better than plain: relative to the teacher's "
        "parameters, its score, and the plain student's score.",
        '- Step (median, without loading) and peak memory of the training process: times the plain '
        f"run's, which holds the teacher, too; {jobs} run{'s' * (jobs > 1)} at a time, on "
        f'{how["device"]}.',
    ]
    spread = '± is the sample deviation over seeds.' if len(seeds) > 1 else 'One seed: no spread.'
    return [*lines, f'- {spread}']


def table_csv(pairs: Sequence[PairResults], seeds: Sequence[int], work_dir: str) -> str:
    """One line for each row, with everything that is known."""
    fields = ['pair', 'row', 'status', 'metric', *(f'seed_{seed}' for seed in seeds)]
    fields += ['mean', 'std', 'gain', 'gain_std', 'share_of_gap', 'parameters_saved']
    fields += ['behind_teacher', 'better_than_plain', 'step_x_plain', 'memory_x_plain']
    fields += ['step_s', 'peak_bytes', 'minutes', *ORDER, 'command']
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator='\n')
    writer.writeheader()
    writer.writerows(entries(pairs, seeds, work_dir))
    return out.getvalue()


def entries(
    pairs: Sequence[PairResults], seeds: Sequence[int], work_dir: str
) -> list[dict[str, str]]:
    """Everything that is known of each row, as text."""
    return [
        _entry(pair, one, found, seeds, work_dir)
        for pair in pairs
        for one, found in pair.summaries()
    ]


def _entry(
    pair: PairResults, one: Result, found: Summary, seeds: Sequence[int], work_dir: str
) -> dict[str, str]:
    who = 'teacher' if one.row.kind == TEACHER else 'student'
    values = dict(
        mean=found.mean,
        std=found.std,
        gain=found.gain,
        gain_std=found.gain_std,
        share_of_gap=found.share,
        parameters_saved=saved(pair, one),
        behind_teacher=found.behind,
        better_than_plain=found.better,
        step_x_plain=found.step,
        memory_x_plain=found.memory,
        step_s=statistics.median_high(one.step.values() or [math.nan]),
        peak_bytes=statistics.median_high(one.peak.values() or [math.nan]),
        minutes=found.minutes,
        **{f'seed_{seed}': found.scores.get(seed, math.nan) for seed in seeds},
        **{key: pair.costs.get(who, {}).get(key, math.nan) for key in ORDER},
    )
    numbers = {key: '' if math.isnan(value) else f'{value:.6g}' for key, value in values.items()}
    status = one.problem or ('done' if found.scores else 'not trained')
    trained = one.row in pair.rows.trained()
    command = pair.rows.command(one.row, seeds[0], work_dir) if trained else ''
    text = dict(pair=pair.rows.pair.name, row=one.row.name, status=status, metric=pair.metric)
    return text | numbers | dict(command=command)


def _line(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def _cost(value: float) -> str:
    return _number(value, '.0f' if value >= 100 else '.3g', 'n/a')


def _number(value: float, form: str, missing: str = '') -> str:
    return missing if math.isnan(value) else format(value, form)


def _times(value: float) -> str:
    return '' if math.isnan(value) else f'{value:.2f} x'


def _with_deviation(mean: float, std: float, form: str) -> str:
    return _number(mean, form) + ('' if math.isnan(std) else f' ± {std:{form.lstrip("+")}}')


def _percent(value: float, form: str = '.0f') -> str:
    return '' if math.isnan(value) else f'{100 * value:{form}} %'
