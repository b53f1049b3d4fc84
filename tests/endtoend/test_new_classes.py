"""A class is added to a detector: labels of it alone, and a teacher of the others."""

import pytest
import torch
from recipes import recipe, run

from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import build_model
from mmkd.testing import tiny_retinanet

OLD, NEW = ('disc', 'square'), ('triangle',)


@pytest.fixture(scope='module')
def old(tmp_path_factory):
    """Checkpoint of a detector of two classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('old') / 'old.pth'
    state = build_model(tiny_retinanet(4, num_classes=2)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=OLD))), path)
    return str(path)


def increment(old, folder, class_map):
    teacher = dict(config=tiny_retinanet(4, num_classes=2), checkpoint=old)
    kd = dict(type='mmkd.DenseKD', class_map=class_map)
    student = tiny_retinanet(4, num_classes=3)
    model = dict(type='mmkd.Distiller', student=student, teacher=teacher, objectives=dict(kd=kd))
    changes = {'load_from': old, 'optim_wrapper.optimizer.lr': 1e-4}
    config = recipe('retinanet', folder / 'data', folder / 'run', model, 2, **changes)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.dataset.metainfo = dict(classes=(*OLD, *NEW))
    own = config.train_dataloader.dataset.to_dict()
    sources = [dict(own, metainfo=dict(classes=names)) for names in (NEW, OLD)]
    config.train_dataloader.dataset = dict(
        type='mmkd.JoinLabels', dataset=sources[0], others=sources[1:], classes=(*OLD, *NEW)
    )
    return build_runner(prepare(config))


def test_two_steps_from_the_old_network(old, tmp_path):
    runner = increment(old, tmp_path, [0, 1])
    entries = [runner.train_dataloader.dataset.get_data_info(i) for i in range(8)]
    assert {o['bbox_label'] for e in entries for o in e['instances']} == {0, 1, 2}
    losses, _ = run(runner)
    assert len(losses) == 2
    for step in losses:  # the task's, and what the teacher adds
        assert 0 < step['loss_cls'] + step['loss_bbox'] < step['loss'] < float('inf')
    saved = torch.load(tmp_path / 'run' / 'iter_2.pth', weights_only=False)['state_dict']
    before = torch.load(old, weights_only=False)['state_dict']
    assert saved.keys() == before.keys()
    assert saved['bbox_head.retina_cls.weight'].shape[0] == 18
    moved = (saved['backbone.conv1.weight'] - before['backbone.conv1.weight']).abs().max()
    assert 0 < float(moved) < 0.1, 'it began with the old weights'


def test_classes_that_are_mapped_to_others(old, tmp_path):
    with pytest.raises(ValueError, match=r'class_map=\[1, 2\] of kd takes the classes square, tri'):
        increment(old, tmp_path, [1, 2]).train()
