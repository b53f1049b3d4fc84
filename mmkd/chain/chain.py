"""A chain of runs: checked as a whole, then trained stage by stage; finished ones are skipped."""

from __future__ import annotations

import contextlib
import copy
import os.path as osp
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmkd.chain.checks import (
    Facts,
    check_classes,
    check_kept,
    check_objectives,
    check_saves,
    check_student,
    look_at,
    written_later,
)
from mmkd.chain.folders import begin, check_folders, find_done
from mmkd.chain.isolation import isolated
from mmkd.chain.links import Links
from mmkd.chain.makers import build_maker, run_maker
from mmkd.chain.product import DONE, Product, write_json
from mmkd.chain.progress import ProgressHook
from mmkd.chain.resolving import place_of, read_config, set_teacher, teacher_places
from mmkd.chain.stage import Reference, Stage, read_stages
from mmkd.checkpoint import check_start
from mmkd.checkpoint.newest import newest_checkpoint
from mmkd.checks.in_vain import check_settings
from mmkd.engine.connecting import connect
from mmkd.engine.console.lines import main_metric, score
from mmkd.engine.launch import check_data, enable_amp, train
from mmkd.engine.writable import make_folder
from mmkd.errors.origin import short
from mmkd.waiting import alone, of_main

Hooks = Callable[[Config], list[Hook]]
Say = Callable[[str], None]


class Chain:
    """Stages in their written order, each in a folder of its own below ``work_dir``.

    Everything that can be known is checked here, before anything trains. Stages that are done are
    skipped, one that was cut is resumed; after a kill anywhere the same call ends with the weights
    of a chain that nobody killed.

    Args:
        stages (dict[str, dict]): what :class:`Stage` has, by name.
        work_dir (str): one folder for each stage is made in it.
        seed (int | None): of stages whose config has none; None is 0.
        options (dict): of all stages, as ``--cfg-options``; a stage's own come after them.
        launcher (str): of all stages, as ``--launcher``.
        amp (bool): mixed precision in all stages.
        only_look (bool): models are built for their plans; neither data nor weights are looked for.

    Raises:
        ValueError: a stage or a reference that cannot work; a folder that holds a stage of another
            fingerprint.
        FileNotFoundError: a config, data, or weights that are to be there already.
    """

    def __init__(
        self,
        stages: Mapping[str, Mapping],
        work_dir: str,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,
        launcher: str = 'none',
        amp: bool = False,
        only_look: bool = False,
    ) -> None:
        self.links = Links(read_stages(stages), work_dir, amp=amp)
        self.amp, self.only_look = amp, only_look
        self.facts: dict[str, Facts] = {}
        self.seconds: dict[str, float] = {}
        configs = self.links.configs
        for name, stage in self.links.stages.items():
            with _named(stage):
                if stage.make:
                    build_maker(stage.maker({}))
                    continue
                configs[name] = read_config(stage, options or {}, seed or 0)
                configs[name].launcher = launcher
                check_saves(stage, configs[name])
        for stage in self.links.stages.values():
            for reference in stage.references().values():
                self._check_kept(stage, reference)
        if only_look:
            self._look()
            return
        if launcher != 'none':
            env = next((config.get('env_cfg') for config in configs.values()), None)
            connect(launcher, env or {})
        for name, (product, seconds) in of_main(partial(find_done, self.links)).items():
            self.links.products[name], self.seconds[name] = product, seconds
        self._look()
        of_main(partial(check_folders, self.links))

    # --------------------------------------------------------------------------------- before

    def _check_kept(self, stage: Stage, reference: Reference) -> None:
        source = self.links.stages[reference.stage]
        if source.make is None:
            check_kept(stage, reference, self.links.configs[source.name], source)
        elif reference.take != 'last' or reference.part:
            raise ValueError(
                f"Stage {stage.name!r}: '{reference}', but a maker has one file: write "
                f'{source.name!r}.'
            )

    def _look(self) -> None:
        """Build each model once, and compare what stages take from each other."""
        for name, stage in self.links.stages.items():
            if stage.make or name in self.facts or self.links.waits(name):
                continue
            with isolated(), _named(stage):
                config = self.links.resolved(name, {})
                awaits = self.links.awaits(name, config)
                if self.only_look:
                    for _, entry in teacher_places(config.model.get('teacher')):
                        set_teacher(entry, entry.get('config'), None, '')
                else:
                    _check_inputs(config, stage, self.amp)
                later = None if self.only_look else written_later(stage)
                self.facts[name] = look_at(config, awaits, later)
            self._compare(stage)

    def _compare(self, stage: Stage) -> None:
        facts = self.facts[stage.name]
        if stage.student and stage.student.stage in self.facts:
            check_student(stage, facts, self.facts[stage.student.stage])
        if stage.objectives and stage.objectives.stage in self.facts:
            check_objectives(stage, facts, self.facts[stage.objectives.stage])
        for key, reference in stage.teacher.items():
            name = key if key in facts.comparing else next(iter(facts.comparing), '')
            if reference.stage in self.facts and '.' not in key:
                check_classes(stage, name, reference, facts, self.facts[reference.stage])

    # --------------------------------------------------------------------------------------- run

    def run(
        self, only: str | None = None, hooks: Hooks = lambda config: [], say: Say = print
    ) -> dict[str, Product]:
        """Train what is not done yet; returns the products of finished stages.

        Args:
            only (str | None): the one stage to run; what it takes must be done.
            hooks (Callable): more hooks for the run of a config.
            say (Callable): gets one line for each stage, and the table at the end.

        Raises:
            ValueError: ``only`` is no stage, or takes from one that is not done.
            Stopped: Ctrl-C or SIGTERM, with the command that continues.
        """
        order = list(self.links.stages)
        for name in self._asked(only):
            head = f'stage {order.index(name) + 1}/{len(order)} {name}:'
            if name in self.links.products:
                say(f'{head} done already')
            else:
                self._run_stage(name, head, hooks, say)
        for line in self.table():
            say(line)
        return dict(self.links.products)

    def _asked(self, only: str | None) -> list[str]:
        stages, done = self.links.stages, self.links.products
        if only is None:
            return list(stages)
        if only not in stages:
            raise ValueError(f'--only {only}: stages are {", ".join(stages)}.')
        needed = [r.stage for r in stages[only].references().values()]
        missing = [name for name in dict.fromkeys(needed) if name not in done]
        if missing:
            raise ValueError(
                f'--only {only}: it takes from {", ".join(missing)}, not done in '
                f'{self.links.work_dir}. Run the chain without --only, or that stage first.'
            )
        return [only]

    def _run_stage(self, name: str, head: str, hooks: Hooks, say: Say) -> None:
        stage, folder = self.links.stages[name], self.links.folder(name)
        make_folder(folder)
        self._look()  # what waited for a maker
        files = of_main(partial(self.links.files, name))
        marker = of_main(partial(begin, self.links, name))
        newest = None if stage.make else of_main(lambda: newest_checkpoint(folder)[0])
        state = f'resumed from {osp.basename(newest)}' if newest else 'started'
        references = stage.references().items()
        takes = [f'{role} = {one} -> {short(files[role])}' for role, one in references]
        say('; '.join([f'{head} {state}', *takes]))
        with isolated():
            if stage.make:
                product, seconds = self._make(stage, folder, files)
            else:
                product, seconds = self._train(name, files, newest, hooks)
        seconds = round(seconds, 1)  # as the marker has it, so the table stays the same
        if is_main_process():
            marker = marker | dict(product=asdict(product), seconds=seconds)
            write_json(osp.join(folder, DONE), marker)
        self.links.products[name], self.seconds[name] = product, seconds

    def _make(self, stage: Stage, folder: str, files: Mapping[str, str]) -> tuple[Product, float]:
        began, done = time.time(), self.links.products
        given = {
            role: replace(done[reference.stage], checkpoint=files[role])
            for role, reference in stage.references().items()
            if not role.startswith('files.')
        }

        def make() -> Product:
            with alone():
                return run_maker(build_maker(stage.maker(files)), given, folder)

        return of_main(make), time.time() - began

    def _train(
        self, name: str, files: Mapping[str, str], newest: str | None, hooks: Hooks
    ) -> tuple[Product, float]:
        folder, config = self.links.folder(name), self.links.resolved(name, files)
        config.experiment_name = f'{osp.basename(osp.abspath(self.links.work_dir))}_{name}'
        config.resume = newest is not None
        if newest:
            config.load_from = newest
        own = ProgressHook(folder)
        train(config, hooks=[own, *hooks(config)], work_dir=folder, amp=self.amp)
        last = of_main(lambda: newest_checkpoint(folder)[0])
        if last is None:
            raise ValueError(f'Stage {name!r} has written no checkpoint into {folder}.')
        path = osp.join(folder, osp.basename(config.filename))
        return Product(path, last, folder, own.scores), own.seconds

    # ------------------------------------------------------------------------------------- texts

    def table(self) -> list[str]:
        """Stage, score, seconds and checkpoint of all that is done."""
        rows = [('stage', 'score', 'seconds', 'checkpoint')]
        for name, product in self.links.products.items():
            main = main_metric([], product.scores)
            value = score(main, product.scores[main]) if main else '-'
            rows.append((name, value, f'{self.seconds[name]:.0f}', short(product.checkpoint)))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return [
            f'{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}'
            for row in rows
        ]

    def text(self) -> str:
        """The plans of all stages, a line for each reference."""
        stages, blocks = self.links.stages, []
        for number, (name, stage) in enumerate(stages.items(), 1):
            lines = [f'stage {number}/{len(stages)} {name}: {stage.config or stage.make}']
            lines += [f'  {role} = {one}' for role, one in stage.references().items()]
            if name in self.facts:
                lines.append(self.facts[name].text)
            elif not stage.make:
                lines.append('  its network is made by a stage before it; the plan comes then')
            blocks.append('\n'.join(lines))
        return '\n\n'.join(blocks)


def _check_inputs(config: Config, stage: Stage, amp: bool) -> None:
    """Data and weights that a config names must be there, its numbers possible, and AMP, too.

    What a stage before it is going to write, data or weights to start from, is not there yet.
    """
    check_settings(config.get('train_cfg'), config.get('optim_wrapper'))
    if amp:
        enable_amp(copy.deepcopy(config))
    there = copy.deepcopy(config)
    data = [key for key in stage.files if key.startswith(('train_dataloader.', 'val_dataloader.'))]
    for dataset in [_dataset_of(there, stage, key) for key in data]:
        dataset.clear()
    check_data(there, 'train', 'val')
    if 'load_from' not in stage.files:
        check_start('load_from', config.get('load_from'))


def _dataset_of(config: Config, stage: Stage, key: str) -> Any:
    """The dataset that a dotted key is an option of, itself or of its ``data_prefix``."""
    place = place_of(config, stage, key)
    return place if 'type' in place else _dataset_of(config, stage, key.rpartition('.')[0])


@contextlib.contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Say of which stage an error is, unless it says so itself."""
    who, source = f'Stage {stage.name!r}', stage.config or (stage.make or {}).get('type')
    try:
        yield
    except (FileNotFoundError, TypeError, ValueError) as error:
        kind = next(k for k in (FileNotFoundError, TypeError, ValueError) if isinstance(error, k))
        if str(error).startswith(who):
            raise
        raise kind(f'{who} ({source}): {error}') from error
