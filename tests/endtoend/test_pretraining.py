"""A backbone is pretrained under a larger classifier and goes into a detector."""

import pytest
import torch
from mmengine.config import Config

from mmkd.datasets.scenes import CLASSES
from mmkd.datasets.synthetic import write_folders
from mmkd.engine.launch import build_runner, prepare
from mmkd.engine.launch import test as score
from mmkd.families import classifier
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_classifier, tiny_retinanet

STUDENT = tiny_classifier(8, 5, kind='mmdet')
MIXTURES = dict(mixup=0.2, cutmix=1.0)


def recipe(root, work_dir, model):
    """A complete config that trains ``model`` for two steps of four images."""

    def loader(split, crop):
        pipeline = [
            dict(type='LoadImageFromFile'),
            crop,
            dict(type='RandomFlip', prob=0.5),
            dict(type='mmkd.PackClassInputs'),
        ]
        dataset = dict(
            type='mmkd.ClassFolders',
            data_root=str(root),
            data_prefix=dict(img_path=split),
            test_mode=split == 'val',
            pipeline=pipeline,
        )
        sampler = dict(type='DefaultSampler', shuffle=split == 'train')
        return dict(batch_size=4, num_workers=0, sampler=sampler, dataset=dataset)

    val = loader('val', dict(type='CenterCrop', crop_size=64))
    metric = dict(type='mmkd.Accuracy')
    return Config(
        dict(
            default_scope='mmengine',
            model=model,
            work_dir=str(work_dir),
            experiment_name=f'pretraining_{work_dir.name}',
            train_dataloader=loader('train', dict(type='mmkd.RandomResizedCrop', scale=64)),
            val_dataloader=val,
            test_dataloader=val,
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(by_epoch=False, max_iters=2, val_interval=2),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=3),
            log_level='WARNING',
        )
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder of a run under a random teacher, with mixtures; scores of its last validation."""
    folder = tmp_path_factory.mktemp('pretraining')
    write_folders(folder / 'data', 8, 5, size=(80, 72))
    student = dict(STUDENT, data_preprocessor=STUDENT['data_preprocessor'] | MIXTURES)
    teacher = tiny_classifier(8, 5, data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3))
    model = dict(
        type='mmkd.Distiller',
        student=student,
        teacher=dict(config=teacher, checkpoint='random'),
        objectives=dict(kd=dict(type='mmkd.KD'), dkd=dict(type='mmkd.DKD')),
    )
    runner = build_runner(prepare(recipe(folder / 'data', folder / 'kd', model)))
    runner.train()
    return folder, runner.message_hub


def test_scores_and_losses_are_logged(trained):
    _, hub = trained
    assert 0 <= hub.get_scalar('val/top1').current() <= hub.get_scalar('val/top5').current() == 100
    for name in ('loss_cls', 'kd.kd.loss', 'kd.dkd.loss_target', 'kd.dkd.loss_others'):
        assert hub.get_scalar(f'train/{name}').current() > 0


def test_the_checkpoint_is_a_plain_classifier_with_the_names_of_its_classes(trained):
    folder, hub = trained
    checkpoint = str(folder / 'kd' / 'iter_2.pth')
    teacher = Teacher(STUDENT, checkpoint=checkpoint)
    assert classifier.classes(teacher.model) == tuple(sorted(CLASSES))
    config = recipe(folder / 'data', folder / 'test', STUDENT)
    assert score(config, checkpoint)['top1'] == hub.get_scalar('val/top1').current()


def test_its_backbone_starts_a_detector(trained):
    folder, _ = trained
    checkpoint = str(folder / 'kd' / 'iter_2.pth')
    init = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    detector = build_model(tiny_retinanet(8, backbone=dict(init_cfg=init)))
    untrained = build_model(STUDENT).backbone.state_dict()
    detector.init_weights()
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    loaded = detector.backbone.state_dict()
    assert loaded.keys() == {k[9:] for k in state if k.startswith('backbone.')}
    assert all(torch.equal(value, state[f'backbone.{key}']) for key, value in loaded.items())
    assert not torch.equal(loaded['conv1.weight'], untrained['conv1.weight'])
