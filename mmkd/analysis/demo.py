"""The demo: a teacher, a plain student and a distilled one on identical schedules."""

import contextlib
import copy
import json
import shutil
import statistics
import sys
import time
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import DefaultScope

from mmkd.analysis.complexity import complexity
from mmkd.chain import Chain
from mmkd.chain.folders import OtherStageError
from mmkd.chain.product import write_json
from mmkd.config import load_config
from mmkd.datasets.synthetic import MARKER, write_coco
from mmkd.engine.overhead import OverheadHook
from mmkd.pixels import Pixels
from mmkd.plan.recording import record
from mmkd.teacher import build_model, load_strictly
from mmkd.visualization import canvas
from mmkd.visualization.chart import curves
from mmkd.visualization.gallery import comparison, predict
from mmkd.visualization.page import panels_of
from mmkd.visualization.shown import PANEL, restore
from mmkd.visualization.viewer import Viewer, build_dataset

RUNS = dict(  # config, options and share of the time; the stages of a chain
    teacher=('mmkd::demo_teacher.py', {}, 0.45),
    plain=('mmkd::demo_fgfi.py', {'model.objectives.fgfi.weight': 0}, 0.22),
    fgfi=('mmkd::demo_fgfi.py', {}, 0.28),
)
NAMES = dict(teacher='teacher', plain='plain student', fgfi='FGFI student')
SIZE = dict(n_train=640, n_val=160, size=(192, 160))
QUICK = dict(n_train=16, n_val=8, size=(96, 80))


def say(text: str = '') -> None:
    """Print for the reader; all else that talks is sent to a log file."""
    print(text, file=sys.__stdout__, flush=True)


class DemoProgress(Hook):
    """One line an epoch; remembers scores and step times in ``history.json``.

    Args:
        began (float): when the demo was started.
        before, share, after (float): work of this call before this run, of the run, and after it.
    """

    priority = 'LOW'  # before the checkpoint that says that the validation is over

    def __init__(self, began: float, before: float, share: float, after: float) -> None:
        self.began, self.before, self.share, self.after = began, before, share, after
        self.history: dict = dict(scores={}, steps=[], loss=0.0, cost='')

    def before_train(self, runner) -> None:
        self.path = Path(runner.work_dir) / 'history.json'
        self.first = runner.epoch
        if self.path.exists() and self.first:
            self.history = json.loads(self.path.read_text())

    loss = float('nan')  # a resumed run may validate first

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.start = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.history['steps'].append(time.perf_counter() - self.start)
        self.history['loss'] = float(outputs['loss'])

    def after_train_epoch(self, runner) -> None:
        if (runner.epoch + 1) % runner.cfg.train_cfg.val_interval:
            self.report(runner, runner.epoch + 1)

    def after_val_epoch(self, runner, metrics=None) -> None:
        scores = [round(100 * metrics[f'coco/bbox_{k}'], 1) for k in ('mAP', 'mAP_50')]
        self.history['scores'][str(runner.epoch)] = scores
        self.report(runner, runner.epoch, scores)

    def report(self, runner, epoch: int, scores=None) -> None:
        write_json(str(self.path), self.history)
        minutes = (time.time() - self.began) / 60
        done = self.before + self.share * (epoch - self.first) / runner.max_epochs
        left = self.share * (1 - epoch / runner.max_epochs) + self.after
        score = f'AP {scores[0]:4.1f}  AP50 {scores[1]:4.1f}' if scores else ' ' * 18
        say(
            f'      epoch {epoch}/{runner.max_epochs}   loss {self.history["loss"]:6.3f}   '
            f'{score}   {minutes:4.1f} min done, about {minutes * left / max(done, 0.01):.1f} left'
        )

    def after_train(self, runner) -> None:
        cost = next((h for h in runner.hooks if isinstance(h, OverheadHook)), None)
        measured = cost is not None and bool(cost.total.marks) and hasattr(runner.model, 'timer')
        self.history['cost'] = cost.report(runner.model) if measured else ''
        write_json(str(self.path), self.history)


def load(path: str):
    """A copy of a config that is parsed once: mmengine takes a second for each."""
    return copy.deepcopy(_parse(path))


_parse = lru_cache(load_config)


@contextlib.contextmanager
def quietly(path: Path):
    """Send what mmengine and its friends print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield


class Demo:
    """All steps; finished ones are skipped."""

    def __init__(self, out: Path, quick: bool = False, seed: int = 0) -> None:
        self.out, self.quick, self.seed = out, quick, seed
        self.began = time.time()
        self.skipped = 0.0

    def options(self, run: str) -> dict:
        """Of one run, beside those that its command shows: data under ``out``, seed, length."""
        data = f'{self.out}/data/'
        found: dict[str, Any] = RUNS[run][1] | {'randomness.seed': self.seed}
        for split in ('train', 'val', 'test'):
            found[f'{split}_dataloader.dataset.data_root'] = data
        for split in ('val', 'test'):
            found[f'{split}_evaluator.ann_file'] = f'{data}annotations/val.json'
        if self.quick:
            found |= {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
            for split in ('train', 'val'):
                workers = dict(num_workers=0, persistent_workers=False)
                found |= {f'{split}_dataloader.{key}': value for key, value in workers.items()}
        return found

    def config(self, run: str):
        """Config of one run, its paths under ``out``."""
        config = load(RUNS[run][0])
        config.merge_from_dict(self.options(run))
        if run != 'teacher':
            config.model.teacher.checkpoint = str(self.checkpoint('teacher').parent)
        return config

    def checkpoint(self, run: str) -> Path:
        """Where the last checkpoint of a run is, or will be."""
        path = RUNS[run][0] if run == 'teacher' else RUNS['fgfi'][0]
        epochs = 2 if self.quick else load(path).train_cfg.max_epochs
        return self.out / run / f'epoch_{epochs}.pth'

    # ------------------------------------------------------------------------------------- steps

    def run(self) -> None:
        sizes = QUICK if self.quick else SIZE
        data = self.out / 'data'
        say(f'[1/5] data: {sizes["n_train"]} + {sizes["n_val"]} scenes in {data}')
        write_coco(data, **sizes)
        with quietly(self.out / 'demo.log'):
            self.forget_other_data()
            chain = self.chain()
        for number, run in enumerate(RUNS, 2):
            self.train(chain, number, run)
        say('[5/5] table and picture')
        scope = DefaultScope.overwrite_default_scope(self.config('teacher').default_scope)
        with quietly(self.out / 'demo.log'), scope:
            costs = {run: self.complexity(run) for run in RUNS}
            picture = self.picture()
        for line in self.table(costs):
            say(line)
        say(f'\nPicture: {picture}   ({(time.time() - self.began) / 60:.1f} minutes)')

    def forget_other_data(self) -> None:
        """Throw away runs on data that were drawn otherwise."""
        marker, note = self.out / 'data' / MARKER, self.out / 'data.json'
        drawn = dict(drawn=marker.read_text())
        if note.exists() and json.loads(note.read_text()) != drawn:
            for run in RUNS:
                shutil.rmtree(self.out / run, ignore_errors=True)
        write_json(str(note), drawn)

    def chain(self) -> Chain:
        """The three runs as stages; what is there of other data, seed or configs is thrown away."""
        stages = {
            run: dict(config=path, options=self.options(run), **self.teacher_of(run))
            for run, (path, _, _) in RUNS.items()
        }
        while True:
            try:
                return Chain(stages, str(self.out), self.seed)
            except OtherStageError as other:
                shutil.rmtree(other.folder)

    @staticmethod
    def teacher_of(run: str) -> dict:
        return {} if run == 'teacher' else dict(teacher='teacher')

    def train(self, chain: Chain, number: int, run: str) -> None:
        """Train one network, or say that it is done."""
        say(f'[{number}/5] {NAMES[run]}: {self.command(run)}')
        if run in chain.links.products:
            self.skipped += RUNS[run][2]
            say('      done already')
            return
        shares = [share for _, _, share in RUNS.values()]
        progress = DemoProgress(
            began=self.began,
            before=0.03 + sum(shares[: number - 2]) - self.skipped,
            share=shares[number - 2],
            after=0.02 + sum(shares[number - 1 :]),
        )
        with quietly(self.out / run / 'output.log'):
            chain.run(only=run, hooks=lambda config: [progress])

    def command(self, run: str) -> str:
        """The command that does the same without the demo."""
        path, options, _ = RUNS[run]
        text = f'mmkd train {path}'
        return text + ''.join(f' --cfg-options {k}={v}' for k, v in options.items())

    def history(self, run: str) -> dict:
        return json.loads((self.out / run / 'history.json').read_text())

    def model(self, run: str):
        """A trained network, a plain one: that is what every checkpoint holds."""
        model = build_model(self.config(run))
        load_strictly(model, str(self.checkpoint(run)), who=run)
        return model.eval()

    # ----------------------------------------------------------------------------------- results

    def complexity(self, run: str) -> tuple[float, float]:
        """Million parameters, and billion multiply-adds for one image of the dataset."""
        model = self.model(run)
        dataset = build_dataset(self.config(run), 'val')
        data = model.data_preprocessor(
            dict(inputs=[dataset[0]['inputs']], data_samples=[dataset[0]['data_samples']])
        )
        found = complexity(model, lambda: model(**data, mode='tensor'))
        return found.parameters / 1e6, found.macs / 1e9

    def table(self, costs: dict) -> list[str]:
        """The result, in one sentence."""
        scores = {run: list(self.history(run)['scores'].values())[-1] for run in RUNS}
        steps = {run: 1e3 * statistics.median(self.history(run)['steps']) for run in RUNS}
        lines = ['', f'{"":15}{"AP":>7}{"AP50":>7}{"parameters":>13}{"GMACs":>9}{"step":>10}']
        for run, name in NAMES.items():
            (ap, ap50), (size, macs) = scores[run], costs[run]
            line = f'{name:15}{ap:7.1f}{ap50:7.1f}{size:11.2f} M{macs:9.3f}{steps[run]:7.0f} ms'
            ratio = f'  = {steps[run] / steps["plain"]:.2f} x plain' if run == 'fgfi' else ''
            lines.append(line + ratio)
        cost = self.history('fgfi')['cost']
        return [*lines, *(['FGFI ' + cost] if cost else []), verdict(scores, self.quick)]

    def picture(self) -> Path:
        """Detections of all three on the first validation images, and what FGFI imitates."""
        indices = [0, 1, 2]
        dataset = build_dataset(self.config('plain'), 'val')
        order = ('plain', 'fgfi', 'teacher')
        scores = {run: list(self.history(run)['scores'].values())[-1][0] for run in RUNS}
        results = {
            f'{NAMES[run]}, AP {scores[run]:.1f}': predict(self.model(run), dataset, indices)
            for run in order
        }
        viewer = Viewer(self.config('fgfi'), 'val', str(self.checkpoint('fgfi')))
        inputs, samples = viewer.load(indices)
        shown = restore(inputs, samples, Pixels.of(viewer.student), dataset.metainfo)
        views = viewer.model.objectives['fgfi'].views(record(viewer.model, inputs, samples)['fgfi'])
        return canvas.save(self._compose(shown, results, views), self.out / 'demo.png')

    def _compose(self, shown, results, views):
        """Detections, and below them the masks of the first image and the curves."""
        masks = [v for v in views if v.kind == 'mask']
        named = [replace(v, title=f'FGFI mask, stride {v.stride}') for v in masks]
        last = [panels_of([view], shown[0])[0] for view in named]
        histories = {
            NAMES[run]: self.history(run)['scores'] for run in ('teacher', 'fgfi', 'plain')
        }
        lines = {name: {int(e): s[0] for e, s in h.items()} for name, h in histories.items()}
        size = (PANEL, PANEL * shown[0].image.shape[0] // shown[0].image.shape[1])
        last.append(curves(lines, 'AP over epochs', 'identical schedules', size))
        return canvas.framed(canvas.below([comparison(shown, results), canvas.beside(last)]))


def verdict(scores: dict, quick: bool) -> str:
    """One sentence on the result."""
    teacher, plain, fgfi = (scores[run][0] for run in RUNS)
    gain, gap = fgfi - plain, teacher - plain
    if quick:
        return 'This was --quick: far too short for the numbers to mean anything.'
    if gain <= 0:
        return f'FGFI did not help this time: {gain:+.1f} AP. One seed on 160 images says little.'
    share = f', {100 * gain / gap:.0f} % of the gap to the teacher' if gap > 0 else ''
    return f'FGFI: {gain:+.1f} AP{share}. One seed; the student itself is as small as before.'
