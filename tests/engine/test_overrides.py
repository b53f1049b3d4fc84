"""--cfg-options: keys that would change nothing."""

import copy

import pytest
from mmengine.config import Config

from mmkd.engine import overrides
from mmkd.engine.overrides import check_names, check_overrides, one_slip

CONFIG = Config(
    dict(
        model=dict(
            type='mmkd.Distiller',
            teacher=dict(config='a.py'),
            objectives=dict(kd=dict(type='mmkd.KD')),
            test_cfg=dict(score_thr=0.1),
        ),
        train_dataloader=dict(batch_size=2, dataset=dict(pipeline=[dict(type='A', scale=3)])),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(lr=0.1)),
    )
)


@pytest.mark.parametrize(
    ('key', 'right'),
    [
        ('train_dataloder.batch_size', 'train_dataloader.batch_size'),
        ('train_dataloader.bach_size', 'train_dataloader.batch_size'),
        ('Model.test_cfg', 'model.test_cfg'),
        ('model.test_cfg.score_trh', 'model.test_cfg.score_thr'),
        ('train_dataloader.dataset.pipeline.0.scael', 'train_dataloader.dataset.pipeline.0.scale'),
        ('optim_wrapper.optimizzer.lr', 'optim_wrapper.optimizer.lr'),
        ('optim_wrapper.optimizer.LR', 'optim_wrapper.optimizer.lr'),
        ('work_dirs', 'work_dir'),
    ],
)
def test_a_slip_is_refused_with_the_key_that_is_meant(key, right):
    with pytest.raises(ValueError, match=f'Did you mean {right}?'):
        check_overrides([key], copy.deepcopy(CONFIG))


@pytest.mark.parametrize('where', ['custom_hooks', 'train_dataloader.dataset.transforms'])
def test_an_entry_of_a_list_that_is_not_there(where):
    with pytest.raises(ValueError, match=f'no list {where}, so it has no entry 0'):
        check_overrides([f'{where}.0.type'], CONFIG)


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(overrides, 'print_log', lambda text, **_: lines.append(text))
    return lines


@pytest.mark.parametrize(
    'key',
    [
        *('model.test_cfg.score_thr', 'train_dataloader.dataset.pipeline.0.scale', 'work_dir'),
        *('randomness.seed', 'test_dataloader.batch_size', 'model.task_weight'),
        *(
            'model.teacher.dtype',
            'model.objectives.at.type',
            'train_dataloader.dataset.pipeline.7.x',
        ),
    ],
)
def test_what_is_there_or_is_checked_elsewhere_passes(key, told):
    check_overrides([key], CONFIG)
    assert not told


@pytest.mark.parametrize('key', ['learning_rate', 'train_dataloader.shuffle'])
def test_what_nobody_may_read_is_told(key, told):
    check_overrides([key], CONFIG)
    assert len(told) == 1 and key.rpartition('.')[2] in told[0]


def test_slips():
    assert (
        one_slip('weight', 'wieght') and one_slip('Weight', 'weight') and one_slip('abcd', 'abcde')
    )
    assert not one_slip('stage1', 'stage2') and not one_slip('kd', 'pkd')
    assert not one_slip('min_size', 'max_size') and not one_slip('in_channels', 'out_channels')


def test_dtype_is_no_slip_of_type():
    check_overrides(['optim_wrapper.dtype'], copy.deepcopy(CONFIG))


@pytest.mark.parametrize(
    ('name', 'meant'),
    [('modle', 'model'), ('Model', 'model'), ('train_dataloder', 'train_dataloader')],
)
def test_a_misspelt_name_at_the_top_of_a_config(name, meant):
    with pytest.raises(ValueError, match=f'has {name!r}, which nothing reads. .* mean {meant!r}'):
        check_names(Config({'model': dict(), name: dict()}))
    check_names(
        Config(
            dict(model=dict(), mode='min', models=[], backbone=dict(), data_root='x', num_stages=3)
        )
    )
