"""A classifier is trained with exits, resumed, and scored exit by exit from its checkpoint."""

import pytest
import torch
from mmengine.config import Config
from test_pretraining import recipe

from mmkd.datasets.synthetic import write_folders
from mmkd.engine.launch import build_runner, prepare
from mmkd.engine.launch import test as score
from mmkd.testing import tiny_classifier

STUDENT = tiny_classifier(4, 5)
EXITS = dict(type='mmkd.MultiExit', mu=0.200001)  # less than any prediction is sure: T grows


def config_of(folder, name, model, iterations=2, **more):
    config = recipe(folder / 'data', folder / name, model).to_dict()
    config['train_cfg'] = dict(by_epoch=False, max_iters=iterations, val_interval=iterations)
    return Config(config | more | dict(experiment_name=f'exits_{name}'))


def train(folder, name, iterations=2, objective=EXITS, **more):
    """Losses of the steps; weights lie in ``folder/name``."""
    model = dict(
        type='mmkd.Distiller',
        student=STUDENT,
        objectives=dict(it=objective),
        task_weight=5 / 3,
    )
    runner = build_runner(prepare(config_of(folder, name, model, iterations, **more)))
    runner.train()
    return runner.message_hub


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('exits')
    write_folders(folder / 'data', 8, 5, size=(80, 72))
    hub = train(folder, 'whole', 4)
    (folder / 'top1').write_text(str(hub.get_scalar('val/top1').current()))
    return folder


def weights(folder, name):
    return torch.load(folder / name / 'iter_4.pth', weights_only=False)['state_dict']


def test_a_resumed_run_goes_on_with_its_temperature(folder):
    train(folder, 'half', 2)
    train(folder, 'half', 4, resume=True)
    whole, half = weights(folder, 'whole'), weights(folder, 'half')
    assert float(whole['objectives.it.temperature']) == pytest.approx(1.05**4)
    assert whole.keys() == half.keys()
    assert all(torch.equal(value, half[key]) for key, value in whole.items())


def test_each_exit_and_the_mean_are_scored_from_the_checkpoint_of_training(folder):
    checkpoint = str(folder / 'whole' / 'iter_4.pth')
    edited = dict(type='mmkd.Edited', model=STUDENT, edits=[dict(type='mmkd.Exits')])
    metric = dict(type='mmkd.Accuracy', topk=(1,), exits=True)
    found = score(config_of(folder, 'any', edited, test_evaluator=metric), checkpoint)
    assert [*found] == ['top1', 'exit0_top1', 'exit1_top1', 'exit2_top1', 'mean_top1']
    assert found['top1'] == found['exit2_top1'] == float((folder / 'top1').read_text())
    for use, name in ((0, 'exit0_top1'), (1, 'exit1_top1'), ('mean', 'mean_top1')):
        edited['edits'][0]['use'] = use
        alone = score(config_of(folder, f'use_{use}', edited), checkpoint)
        assert alone['top1'] == found[name]


def test_another_task_weight_is_refused_before_the_first_step(folder):
    with pytest.raises(ValueError, match='set task_weight=1 in the model'):
        train(folder, 'refused', objective=EXITS | dict(scale=2))
