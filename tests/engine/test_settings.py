"""A resumed run says in a line or two what its config changed."""

import copy

import pytest
from mmengine.config import Config
from runner_toys import log_of, make
from torch import nn

from mmkd.engine.settings import report_changes, settings_of

CONFIG = dict(
    model=dict(
        type='mmkd.Distiller',
        student=dict(type='mmdet.FCOS', head=dict(loss=nn.L1Loss, init_cfg=dict(type='Normal'))),
        teacher=dict(config='mmdet::a.py', checkpoint='a.pth'),
        objectives=dict(fgd=dict(type='mmkd.FGD', weight=1.0), cwd=dict(type='mmkd.CWD')),
    ),
    train_dataloader=dict(batch_size=2, num_workers=2, dataset=dict(ann_file='train.json')),
    train_cfg=dict(by_epoch=True, max_epochs=12),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02), clip_grad=None),
    param_scheduler=[dict(type='LinearLR', end=500), dict(type='MultiStepLR', milestones=(8, 11))],
    work_dir='a',
    randomness=dict(seed=0),
)


def changed(**changes):
    """What is said when these dotted keys have another value."""
    config = Config(copy.deepcopy(CONFIG))
    for key, value in changes.items():
        if isinstance(value, dict):
            value = dict(value, _delete_=True)
        config.merge_from_dict({key: value})
    return report_changes(settings_of(Config(CONFIG)), settings_of(config))


def test_nothing_changed_nothing_said():
    assert changed() == []
    noise = {'work_dir': 'b', 'resume': True, 'load_from': 'x.pth', 'log_level': 'DEBUG'}
    assert changed(**noise, **{'train_dataloader.num_workers': 8}) == []
    assert report_changes(None, settings_of(CONFIG)) == []
    assert report_changes(settings_of(CONFIG), {}) == []


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('model.objectives.fgd.weight', 2.0, 'model.objectives.fgd.weight 1.0 -> 2.0'),
        ('model.teacher.checkpoint', 'b.pth', "model.teacher.checkpoint 'a.pth' -> 'b.pth'"),
        ('train_cfg.max_epochs', 24, 'train_cfg.max_epochs 12 -> 24'),
        ('train_dataloader.batch_size', 4, 'train_dataloader.batch_size 2 -> 4'),
        (
            'train_dataloader.dataset.ann_file',
            'x' * 99,
            f"train_dataloader.dataset.ann_file 'train.json' -> 'xxxxxxxxxxxxxxxx{'x' * 20}…",
        ),
        ('model.objectives.pkd', dict(type='mmkd.PKD'), 'model.objectives.pkd is new, mmkd.PKD'),
        ('optim_wrapper.clip_grad', dict(max_norm=1), 'optim_wrapper.clip_grad None -> {…}'),
        ('model.student.head.loss', nn.MSELoss, 'model.student.head.loss'),
    ],
)
def test_what_changed_is_said_in_one_line(key, value, said):
    assert len(changed(**{key: value})) == 1
    assert changed(**{key: value})[0].startswith(
        f'The config is not that of the interrupted run: {said}'
    )


def test_what_is_gone():
    config = copy.deepcopy(CONFIG)
    del config['model']['objectives']['cwd']
    line = report_changes(settings_of(CONFIG), settings_of(config))[0]
    assert line.endswith('run: model.objectives.cwd mmkd.CWD is gone.')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('optim_wrapper.optimizer.lr', 0.01),
        ('param_scheduler', CONFIG['param_scheduler'][:1]),
        ('optim_wrapper.paramwise_cfg', dict(norm_decay_mult=0)),
    ],
)
def test_what_the_checkpoint_overrules_is_said_too(key, value):
    lines = changed(**{key: value})
    assert len(lines) == 2
    assert lines[1].startswith(f'Optimiser and schedules go on as in the checkpoint: {key} changes')


def test_a_step_of_a_schedule():
    schedules = copy.deepcopy(CONFIG['param_scheduler'])
    schedules[1]['milestones'] = [8, 10]
    line = changed(param_scheduler=schedules)[0]
    assert line.endswith('run: param_scheduler[1].milestones [8, 11] -> [8, 10].')


def test_many_changes_are_counted():
    line, _ = changed(**{f'optim_wrapper.optimizer.x{i}': i for i in range(9)})
    assert line.endswith('; and 3 more.') and line.count(' is new') == 6


def test_another_kind_of_optimiser_is_refused():
    with pytest.raises(ValueError, match="optimiser was 'SGD' and is 'AdamW' now"):
        changed(**{'optim_wrapper.optimizer.type': 'AdamW'})


@pytest.mark.parametrize('before', ['text', [1], 7, dict(model='text\n\x1b[2J'), {3: {4: None}}])
def test_files_may_say_anything(before):
    assert all(line.isprintable() for line in report_changes(before, settings_of(CONFIG)))


def test_in_a_run(tmp_path):
    """Twice: the run that was told of a change hands its own settings on."""
    plan = dict(train_cfg=dict(max_epochs=3), optim_wrapper=dict(clip_grad=None))
    make(tmp_path, cfg=Config(plan)).train()
    (tmp_path / 'epoch_3.pth').unlink()
    plan['train_cfg'] = dict(max_epochs=9)
    again = make(tmp_path, cfg=Config(plan), resume=True)
    again.train()
    last = tmp_path / 'epoch_3.pth'
    assert 'interrupted run: train_cfg.max_epochs 3 -> 9.' in log_of(again)
    once_more = make(tmp_path / 'b', cfg=Config(plan), resume=True, load_from=str(last))
    assert 'not that of' not in log_of(once_more)
