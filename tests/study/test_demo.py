"""The demo: its study, what it says, what it throws away. Training is left out: seconds count."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_toys import FakeStart

from mmkd.chain.folders import OtherStageError
from mmkd.config import load_config
from mmkd.study import demo as module
from mmkd.study.demo import Demo, verdict
from mmkd.study.pairing import rows_of
from mmkd.study.results import Result, Summary
from mmkd.study.rows import DISTILLED, PLAIN, Row
from mmkd.teacher import build_model


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """A folder, and the demo's rows in it."""
    out = tmp_path_factory.mktemp('demo')
    (found,) = rows_of(Demo(out, seed=3).study(), str(out), lambda row: None)
    return out, found


def test_schedules_are_identical_and_only_the_weight_differs(rows):
    _, found = rows
    configs = [row.read(3) for row in found]
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader', 'randomness'):
        assert all(config[key] == configs[0][key] for config in configs)
    assert not any(row.notes for row in found.methods)
    _, plain, fgfi, pkd = (config.model for config in configs)
    assert plain.objectives.fgfi.weight == 0 < fgfi.objectives.fgfi.weight
    assert pkd.balance.ratio == 0.3
    plain.objectives.fgfi.weight = fgfi.objectives.fgfi.weight
    plain.teacher.checkpoint = fgfi.teacher.checkpoint
    assert plain == fgfi


def test_everything_lies_in_one_folder(rows):
    out, found = rows
    for row in found:
        config = row.read(3)
        assert config.train_dataloader.dataset.data_root == f'{out}/data/'
        assert config.val_evaluator.ann_file == f'{out}/data/annotations/val.json'
        assert row.kind != 'distilled' or row.learns_from == 'teacher'


def test_the_default_paths_are_those_of_the_configs():
    """The commands of the report do the same without the demo."""
    study = Demo(Path('work_dirs/demo')).study()
    (found,) = rows_of(study, 'work_dirs/demo', lambda row: None)
    for row in found.methods:
        assert row.read(0).model == load_config(row.config).model
    assert load_config(module.STUDY).work_dir == 'work_dirs/demo'


def test_the_teacher_is_the_larger_network(rows):
    models = [build_model(row.read(3)) for row in list(rows[1])[:2]]
    count = [sum(p.numel() for p in model.parameters()) for model in models]
    assert count[0] > 4 * count[1]


@pytest.mark.parametrize(
    ('gain', 'share', 'says'),
    [
        (5.0, 0.25, 'FGFI: +5.0 AP, 25 % of the gap to the teacher.'),
        (-1.0, -0.05, 'FGFI: -1.0 AP: it did not help this time.'),
        (1.0, math.nan, 'FGFI: +1.0 AP.'),
    ],
)
def test_the_verdict_is_honest(gain, share, says):
    plain = Result(Row('plain', '', PLAIN, '')), Summary({}, 20.0, math.nan)
    one = Result(Row('FGFI', '', DISTILLED, ''))
    found = [plain, (one, Summary({}, 20.0, math.nan, gain, share=share))]
    assert verdict(found, False).startswith(says + '\nOne seed')
    assert 'mean anything' in verdict(found, True)


def test_another_seed_or_config_starts_afresh(tmp_path, monkeypatch):
    """A run of other settings is thrown away, not resumed."""
    stale = tmp_path / 'teacher' / 'epoch_1.pth'
    stale.parent.mkdir()
    stale.write_text('')
    (tmp_path / 'plain_s0').mkdir()

    def run(self):
        if stale.exists():
            raise OtherStageError('other', str(stale.parent))

    monkeypatch.setattr(module.Project, 'run', run)
    assert Demo(tmp_path).train().work_dir == str(tmp_path)
    assert not stale.parent.exists() and (tmp_path / 'plain_s0').exists()


def test_other_data_throw_the_runs_away(tmp_path):
    (tmp_path / 'data').mkdir()
    run = tmp_path / 'teacher' / 'done.json'
    run.parent.mkdir()
    run.write_text('{}')
    for text, left in (('a', True), ('a', True), ('b', False)):
        (tmp_path / 'data' / module.MARKER).write_text(text)
        Demo(tmp_path).forget_other_data()
        assert run.exists() == left and (tmp_path / 'data').exists()


def test_it_ends_with_the_table_and_the_picture(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, 'start', FakeStart(dict(teacher=80, plain=40, FGFI=60)))
    monkeypatch.setattr('mmkd.study.processes.PAUSE', 0)
    monkeypatch.setattr('mmkd.study.study.rows_of', lambda *a: rows_of(*a, lambda row: None))
    monkeypatch.setattr(Demo, 'picture', lambda self, pair: self.out / 'demo.png')
    Demo(tmp_path, quick=True).run()
    said = capfd.readouterr().out
    assert '[1/3] data: 16 + 8 scenes' in said and 'PKD_balanced_s0: done in' in said
    assert 'FGFI          60.0  +20.0' in said and f'Picture: {tmp_path}/demo.png' in said
    assert (tmp_path / 'report.md').exists()


def test_a_run_that_fails_ends_it(tmp_path, monkeypatch, capfd):
    failing = SimpleNamespace(failed=dict(teacher='why'))
    monkeypatch.setattr(Demo, 'train', lambda self: failing)
    monkeypatch.setattr(module, 'write_coco', lambda *args, **options: None)
    monkeypatch.setattr(Demo, 'forget_other_data', lambda self: None)
    with pytest.raises(SystemExit) as end:
        Demo(tmp_path, quick=True).run()
    assert end.value.code == 1 and '*/output.log' in capfd.readouterr().out
