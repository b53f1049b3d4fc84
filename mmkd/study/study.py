"""A study from its entries to its report: what is there is kept, the rest is trained."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mmkd.analysis.complexity import device_name
from mmkd.chain.folders import check_folders, find_done
from mmkd.chain.links import Links
from mmkd.chain.product import DONE, fingerprint, read_json, write_json
from mmkd.chain.resolving import read_config, settings_of
from mmkd.chain.stage import read_stages
from mmkd.config import type_name
from mmkd.engine.launch import check_data
from mmkd.engine.occupied import locked
from mmkd.engine.writable import make_folder
from mmkd.study.entries import Study
from mmkd.study.halving import search
from mmkd.study.measure import COSTS, SCORED, STUDY
from mmkd.study.pairing import PairRows, rows_of
from mmkd.study.picture import picture
from mmkd.study.processes import Say, Start, Task, run_all
from mmkd.study.record import record
from mmkd.study.report import report, table_csv
from mmkd.study.results import PairResults, costs_folder, read_pair
from mmkd.study.validations import Validations
from mmkd.visualization import canvas


@dataclass
class Project:
    """A study in a work dir.

    Attributes:
        study (Study): what is asked for.
        work_dir (str): with one folder for each run.
        start (callable): starts the process of a task in a slot.
        say (callable): gets lines for the reader.
        jobs (int): processes at a time.
        command (str): that repeats the study.
        amp, trust (bool): mixed precision; checkpoints that contain code.
        failed (dict[str, str]): runs that failed, and why.
        searched (list[str]): lines on short runs.
        results (list[PairResults]): of all pairs, after :meth:`report`.
        networks (dict[str, dict]): by folder, what is scored or whose costs are measured.
    """

    study: Study
    work_dir: str
    start: Start
    say: Say = print
    jobs: int = 1
    command: str = 'mmkd study'
    amp: bool = False
    trust: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    searched: list[str] = field(default_factory=list)
    results: list[PairResults] = field(default_factory=list)
    networks: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Train what is missing, and write the report.

        Returns:
            dict[str, str]: runs that failed, and why.

        Raises:
            OtherStageError: a folder holds a run of another config.
            ValueError: another process runs a study in the work dir.
            ValueError, FileNotFoundError: whatever is wrong with the study itself.
        """
        make_folder(self.work_dir)
        with locked(self.work_dir) as other:
            if other:
                raise ValueError(
                    f'another study is running in {self.work_dir}: {other}. For several runs at a '
                    'time stop it and start one study with --jobs N, which keeps what is done; or '
                    'give this one another --work-dir.'
                )
            return self._all()

    def _all(self) -> dict[str, str]:
        flags = (*['--amp'] * self.amp, *['--trust-checkpoint'] * self.trust)
        pairs = [replace(pair, flags=flags) for pair in rows_of(self.study, self.work_dir)]
        for pair in pairs:
            self._check(pair)
        self._write(pairs)
        done = {run for pair in pairs for run in self._done(pair)}
        tasks = [task for pair in pairs for task in self._teacher_tasks(pair)]
        if self.study.search:
            self._run(tasks, done)
            pairs = [self._searched(pair) for pair in pairs]
            self._write(pairs)
            tasks = []
        for pair in pairs:
            for row in pair.methods:
                if row.refused:
                    self.say(f'{row.slug}: {row.refused}')
        students = [task for pair in pairs for task in self._student_tasks(pair)]
        self._run([*{task.name: task for task in (*tasks, *students)}.values()], done)
        self._write(pairs)  # which students are finished
        self._run([task for pair in pairs for task in self._costs_tasks(pair)], set())
        self.report(pairs)
        return self.failed

    # ------------------------------------------------------------------------------------ before

    def _check(self, pair: PairRows) -> None:
        """Data and metrics of the runs that are to be trained."""
        seed, evaluators = self.study.seeds[0], {}
        for row in pair.trained():
            config = row.read(seed)
            check_data(config, 'train', 'val')
            entries = config.get('val_evaluator') or []
            entries = entries if isinstance(entries, (list, tuple)) else [entries]
            evaluators[row.name] = {type_name(entry) for entry in entries}
        if evaluators and not set.intersection(*evaluators.values()):
            found = '; '.join(
                f'{k}: {", ".join(sorted(v)) or "none"}' for k, v in evaluators.items()
            )
            raise ValueError(
                f'The runs of the study have no evaluator in common, so no score to compare. Found '
                f'{found}. Give all of them the same val_evaluator.'
            )

    def _stages(self, pair: PairRows) -> dict[str, dict[str, Any]]:
        """Every run of a pair, as the stages of a chain; the teacher comes first."""
        seeds = self.study.seeds
        return {
            row.run(seed): row.stage(seed) for row in pair.trained() for seed in row.seeds(seeds)
        }

    def _done(self, pair: PairRows) -> set[str]:
        """Finished runs.

        Raises:
            OtherStageError: a run that was trained, or begun, with another config.
        """
        stages = self._stages(pair)
        if not stages:
            return set()
        links = Links(read_stages(stages), self.work_dir, amp=self.amp)
        for name, stage in links.stages.items():
            links.configs[name] = read_config(stage, {}, 0)
        links.products |= {name: product for name, (product, _) in find_done(links).items()}
        check_folders(links)
        return {*links.products}

    def _write(self, pairs: Sequence[PairRows], **more: Any) -> None:
        """Tell the workers what there is to do."""
        runs: dict[str, Any] = {}
        networks = self.networks = {}
        for pair in pairs:
            stages = self._stages(pair)
            for name, stage in stages.items():
                needed = stage.get('teacher')
                runs[name] = {needed: stages[needed], name: stage} if needed else {name: stage}
            student = next(iter(pair.students()), None)
            if student is None:
                continue
            seed = self.study.seeds[0]
            entry = {k: v for k, v in student.stage(seed).items() if k != 'teacher'}
            name, given = costs_folder(pair), asdict(pair.pair)
            known = fingerprint(settings_of(student.read(seed)), given)
            own = dict(config=entry, fingerprint=known)
            networks[name] = dict(own, student=self._finished(pair) or student.run(seed))
            if pair.teacher:
                teacher = pair.teacher.run(seed)
                networks.setdefault(teacher, own)
                if teacher not in self.failed:
                    networks[name]['teacher'] = teacher
        study = dict(runs=runs, networks=networks, amp=self.amp, trust=self.trust, **more)
        write_json(osp.join(self.work_dir, STUDY), study)

    def _finished(self, pair: PairRows) -> str:
        """A student that is trained, the plain one if possible."""
        runs = (row.run(seed) for row in pair.students() for seed in self.study.seeds)
        found = (run for run in runs if osp.isfile(osp.join(self.work_dir, run, DONE)))
        return next(found, '')

    # --------------------------------------------------------------------------------------- runs

    def _task(self, name: str, job: str, needs: tuple[str, ...] = ()) -> Task:
        log = osp.join(self.work_dir, name, 'output.log')
        return Task(name, (self.work_dir, job, name), log, needs)

    def _teacher_tasks(self, pair: PairRows) -> list[Task]:
        if pair.teacher is None:
            return []
        name = pair.teacher.run(self.study.seeds[0])
        if not pair.pair.checkpoint:
            return [self._task(name, 'train')]
        return [] if self._is_known(name, SCORED) else [self._task(name, 'score')]

    def _student_tasks(self, pair: PairRows) -> list[Task]:
        return [
            self._task(row.run(seed), 'train', (row.learns_from,) if row.learns_from else ())
            for seed in self.study.seeds
            for row in pair.students()
        ]

    def _costs_tasks(self, pair: PairRows) -> list[Task]:
        name = costs_folder(pair)
        if self._is_known(name, COSTS) or not self._finished(pair):
            return []
        return [self._task(name, 'costs')]

    def _is_known(self, name: str, file: str) -> bool:
        """Whether that was measured of these very networks."""
        kept = read_json(osp.join(self.work_dir, name, file)) or {}
        return kept.get('fingerprint', '') == self.networks.get(name, {}).get('fingerprint')

    def _run(self, tasks: Sequence[Task], done: set[str]) -> None:
        for task in tasks:
            if task.name in done:
                self.say(f'{task.name}: done already')
        self.failed |= self.run_tasks([task for task in tasks if task.name not in done])

    def run_tasks(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Run tasks with a line for each validation."""
        heard = Validations(self.work_dir, self.say)
        return run_all(tasks, self.jobs, self.start, self.say, heard, self.failed)

    def _searched(self, pair: PairRows) -> PairRows:
        """Leave out the methods that short runs find behind others."""
        given = self.study.search
        if given is None or (pair.teacher and pair.teacher.run(0) in self.failed):
            return pair

        def run_tasks(tasks: Sequence[Task], more: Mapping[str, Any]) -> Mapping[str, str]:
            self._write([pair], **more)
            return self.run_tasks(tasks)

        rows, lines = search(pair.methods, given, self.study.seeds[0], self.work_dir, run_tasks)
        self.searched += lines
        return replace(pair, methods=tuple(rows))

    # ------------------------------------------------------------------------------------- report

    def report(self, pairs: Sequence[PairRows]) -> None:
        """Write ``report.md``, ``report.csv``, ``report.json`` and ``report.png``."""
        seeds, folder = self.study.seeds, Path(self.work_dir)
        self.results = [
            read_pair(pair, seeds, self.work_dir, self.study.metric, self.failed) for pair in pairs
        ]
        device = device_name(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
        how = dict(command=self.command, jobs=self.jobs, device=device, left_out=self.searched)
        (folder / 'report.md').write_text(report(self.results, seeds, self.work_dir, how))
        (folder / 'report.csv').write_text(table_csv(self.results, seeds, self.work_dir))
        write_json(str(folder / 'report.json'), record(self.results, seeds, self.work_dir, how))
        canvas.save(picture(self.results), folder / 'report.png')
