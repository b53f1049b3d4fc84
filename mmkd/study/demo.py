"""The demo: a study of a teacher, a plain student and two distilled ones on synthetic scenes."""

import contextlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DefaultScope

from mmkd.chain.folders import OtherStageError
from mmkd.chain.product import done_marker, write_json
from mmkd.config import load_config
from mmkd.datasets.synthetic import MARKER, write_coco
from mmkd.pixels import Pixels
from mmkd.plan.recording import record
from mmkd.study.entries import Study
from mmkd.study.picture import charts
from mmkd.study.processes import start
from mmkd.study.report import screen
from mmkd.study.results import PairResults, Result, Summary
from mmkd.study.rows import DISTILLED
from mmkd.study.study import Project
from mmkd.teacher import build_model, load_strictly
from mmkd.view import View
from mmkd.visualization import canvas
from mmkd.visualization.gallery import comparison, predict
from mmkd.visualization.page import panels_of
from mmkd.visualization.shown import Shown, restore
from mmkd.visualization.viewer import Viewer, build_dataset

STUDY = 'mmkd::studies/demo_frcnn.py'
SIZE = dict(n_train=512, n_val=160, size=(192, 160))
QUICK = dict(n_train=16, n_val=8, size=(96, 80))
SHOWN = [0, 1, 2]  # validation images in the picture


def say(text: str = '') -> None:
    """Print for the reader; all else that talks is sent to a log file."""
    print(text, file=sys.__stdout__, flush=True)


@contextlib.contextmanager
def quietly(path: Path) -> Iterator[None]:
    """Send what mmengine and its friends print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield


class Demo:
    """All steps; finished ones are skipped.

    Args:
        out (Path): where everything goes.
        quick (bool): seconds instead of minutes.
        seed (int): of all runs.
    """

    def __init__(self, out: Path, quick: bool = False, seed: int = 0) -> None:
        self.out, self.quick, self.seed = out, quick, seed
        self.began = time.time()

    def study(self) -> Study:
        """The shipped study, its data under ``out``."""
        entries = load_config(STUDY)._cfg_dict.to_dict()
        options: dict[str, Any] = {'data_root': f'{self.out}/data/'}
        if self.quick:
            options |= {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
            for split in ('train', 'val'):
                workers = dict(num_workers=0, persistent_workers=False)
                options |= {f'{split}_dataloader.{key}': value for key, value in workers.items()}
        return Study.read(entries | dict(seeds=[self.seed], options=options))

    def run(self) -> None:
        """Draw the data, run the study, and end with its table and a picture.

        Raises:
            SystemExit: a run failed.
        """
        sizes = QUICK if self.quick else SIZE
        data = self.out / 'data'
        say(f'[1/3] data: {sizes["n_train"]} + {sizes["n_val"]} scenes in {data}')
        write_coco(data, **sizes)
        say(f'[2/3] teacher, plain student, two distilled ones: mmkd study {STUDY} --jobs 2')
        with quietly(self.out / 'demo.log'):
            self.forget_other_data()
            project = self.train()
        if project.failed:
            say(f'{len(project.failed)} runs failed; the full output is in {self.out}/*/output.log')
            raise SystemExit(1)
        say('[3/3] table and picture')
        (pair,) = project.results
        scope = DefaultScope.overwrite_default_scope('mmdet')
        with quietly(self.out / 'demo.log'), scope:
            picture = self.picture(pair)
        for line in ['', *screen(pair), '', verdict(pair.summaries(), self.quick)]:
            say(line)
        say(f'\nPicture: {picture}   Report: {self.out}/report.md   ({self.minutes():.1f} minutes)')

    def minutes(self) -> float:
        return (time.time() - self.began) / 60

    def forget_other_data(self) -> None:
        """Throw away runs on data that were drawn otherwise."""
        marker, note = self.out / 'data' / MARKER, self.out / 'data.json'
        drawn = dict(drawn=marker.read_text())
        if note.exists() and json.loads(note.read_text()) != drawn:
            for folder in {path.parent for path in self.out.glob('*/*.json')} - {self.out / 'data'}:
                shutil.rmtree(folder)
        write_json(str(note), drawn)

    def train(self) -> Project:
        """Run the study; what is there of another seed or config is thrown away."""
        jobs = min(2, os.cpu_count() or 1)
        while True:
            command = f'mmkd demo --out {self.out} --seed {self.seed}'
            project = Project(
                self.study(), str(self.out), start, lambda text: say(f'      {text}'), jobs, command
            )
            try:
                project.run()
            except OtherStageError as other:
                shutil.rmtree(other.folder)
                shutil.rmtree(self.out / 'costs', ignore_errors=True)
            else:
                return project

    # ----------------------------------------------------------------------------------- results

    def model(self, one: Result) -> Any:
        """A trained network, a plain one: that is what every checkpoint holds."""
        model = build_model(one.row.read(self.seed))
        load_strictly(model, self.checkpoint(one), who=one.row.name)
        return model.eval()

    def checkpoint(self, one: Result) -> str:
        made = done_marker(str(self.out / one.row.run(self.seed))) or {}
        return made['product']['checkpoint']

    def picture(self, pair: PairResults) -> Path:
        """Detections of all on the first validation images, what FGFI imitates, and the charts."""
        teacher, *students = pair.results
        fgfi = next(one for one in students if one.row.name == 'FGFI')
        dataset = build_dataset(teacher.row.read(self.seed), 'val')
        results = {
            f'{one.row.name}, AP {summary.mean:.1f}': predict(self.model(one), dataset, SHOWN)
            for one, summary in sorted(pair.summaries(), key=lambda entry: entry[0] is teacher)
        }
        config = fgfi.row.read(self.seed)
        config.model.teacher.checkpoint = str(self.out / teacher.row.run(self.seed))
        viewer = Viewer(config, 'val', self.checkpoint(fgfi))
        inputs, samples = viewer.load(SHOWN)
        shown = restore(inputs, samples, Pixels.of(viewer.student), dataset.metainfo)
        views = viewer.model.objectives['fgfi'].views(record(viewer.model, inputs, samples)['fgfi'])
        rows = [comparison(shown, results), canvas.beside([*masks(shown, views), charts(pair)])]
        return canvas.save(canvas.framed(canvas.below(rows)), self.out / 'demo.png')


def masks(shown: Sequence[Shown], views: Sequence[View]) -> list[np.ndarray]:
    """The cells of the first image in which FGFI imitates, of the two finest levels."""
    found = [v for v in views if v.kind == 'mask'][:2]
    named = [replace(v, title=f'FGFI mask, stride {v.stride}') for v in found]
    return [panels_of([view], shown[0])[0] for view in named]


def verdict(summaries: Sequence[tuple[Result, Summary]], quick: bool) -> str:
    """What came of it, in two lines."""
    if quick:
        return 'This was --quick: far too short for the numbers to mean anything.'
    found = []
    for one, summary in summaries:
        if one.row.kind == DISTILLED:
            helped = summary.gain > 0 and summary.share > 0
            share = f', {100 * summary.share:.0f} % of the gap to the teacher' if helped else ''
            bad = '' if summary.gain > 0 else ': it did not help this time'
            found.append(f'{one.row.name}: {summary.gain:+.1f} AP{share}{bad}.')
    return ' '.join(found) + '\nOne seed on 160 images; the student itself is as small as before.'
