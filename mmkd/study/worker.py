"""One process of a study: ``python -m mmkd.study.worker WORK_DIR train|score|costs|probe NAME``.

What is to be done is in ``study.json`` of the work dir, which the study writes.
"""

from __future__ import annotations

import os.path as osp
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmkd.analysis.comparison import Entry, score_entry, teachers_in
from mmkd.chain import Chain
from mmkd.chain.product import done_marker, read_json, write_json
from mmkd.chain.resolving import read_config
from mmkd.chain.stage import Stage
from mmkd.checkpoint import trust_checkpoints
from mmkd.config import load_config
from mmkd.errors.ending import plain_errors
from mmkd.study.costs import costs_of
from mmkd.study.halving import probe
from mmkd.study.measure import COSTS, SCORED, STUDY, MeasureHook


def train(work_dir: str, name: str, study: Mapping[str, Any]) -> None:
    """Train one run, or go on with it."""
    hook = MeasureHook(osp.join(work_dir, name))
    chain = Chain(study['runs'][name], work_dir, amp=study['amp'])
    chain.run(only=name, hooks=lambda config: [hook])


def score(work_dir: str, name: str, study: Mapping[str, Any]) -> None:
    """Score a teacher that came with its weights, on the validation set of the students."""
    given = study['networks'][name]
    config = _read(given['config'])
    teacher = next(entry for _, entry in teachers_in(config.model))
    folder = osp.join(work_dir, name)
    scores = score_entry(name, teacher, config, folder)
    kept = dict(scores=scores, checkpoint=teacher.checkpoint, fingerprint=given['fingerprint'])
    write_json(osp.join(folder, SCORED), kept)


def costs(work_dir: str, name: str, study: Mapping[str, Any]) -> None:
    """Measure what predictions of the teacher and of the student cost."""
    given = study['networks'][name]
    config = _read(given['config'])
    student = done_marker(osp.join(work_dir, given['student'])) or {}
    entries = dict(student=Entry(config.model, student['product']['checkpoint']))
    if given.get('teacher'):
        made = done_marker(osp.join(work_dir, given['teacher']))
        if made:
            network = load_config(made['product']['config'])
            entries['teacher'] = Entry(network.model, made['product']['checkpoint'])
        else:
            entries['teacher'] = next(entry for _, entry in teachers_in(config.model))
    found = costs_of(entries, config)
    write_json(osp.join(work_dir, name, COSTS), found | dict(fingerprint=given['fingerprint']))


def _read(stage: Mapping[str, Any]) -> Config:
    return read_config(Stage.read('x', stage), {}, 0)


JOBS: dict[str, Callable[[str, str, Mapping[str, Any]], None]] = dict(
    train=train, score=score, costs=costs, probe=probe
)


def main(words: Sequence[str]) -> None:
    """Do one job; after an error the exit status is 1, and its message the last line."""
    work_dir, job, name = words
    with plain_errors():
        study = read_json(osp.join(work_dir, STUDY)) or {}
        if study.get('trust'):
            trust_checkpoints()
        JOBS[job](work_dir, name, study)


if __name__ == '__main__':
    main(sys.argv[1:])
