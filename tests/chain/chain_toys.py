"""Chains of classifiers on a dozen images of eight pixels, two epochs of three steps each."""

import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmkd.chain import Chain
from mmkd.testing import tiny_classifier

CLASSES = ('a', 'b', 'c')


def write_images(root, classes=CLASSES):
    """Four images of each class to train and two to validate, of colours that can be told apart."""
    generator = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for label, name in enumerate(classes):
            folder = Path(root) / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = generator.integers(0, 120, (8, 8, 3), dtype=np.uint8)
                pixels[..., label % 3] += 100
                Image.fromarray(pixels).save(folder / f'{i}.png')


def recipe(data, width=4, teacher=None, objectives=None, classes=None, **changes):
    """A complete config of a plain classifier, or with ``teacher`` or ``objectives`` distilled."""
    names = classes or CLASSES
    model = tiny_classifier(width, num_classes=len(names))
    if teacher or objectives:
        model = dict(
            type='mmkd.Distiller',
            student=model,
            teacher=teacher,
            objectives=objectives or dict(kd=dict(type='mmkd.KD', weight=0.9)),
        )

    def loader(split, **options):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]
        if split == 'train':
            pipeline.insert(1, dict(type='RandomFlip', prob=0.5))
        dataset = dict(
            type='mmkd.ClassFolders',
            data_root=str(data),
            data_prefix=dict(img_path=split),
            test_mode=split == 'val',
            pipeline=pipeline,
            **(dict(metainfo=dict(classes=classes)) if classes else {}),
        )
        return dict(batch_size=4, num_workers=0, dataset=dataset, **options)

    shuffled = dict(type='DefaultSampler', shuffle=True)
    config = Config(
        dict(
            default_scope='mmengine',
            model=model,
            train_dataloader=loader('train', sampler=shuffled),
            val_dataloader=loader('val', sampler=dict(shuffled, shuffle=False)),
            val_evaluator=dict(type='mmkd.Accuracy', topk=(1,)),
            train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1), logger=None, timer=None
            ),
            log_level='WARNING',
        )
    )
    config.merge_from_dict(changes)
    return config


def write(folder, data, **configs):
    """Write ``<name>.py`` for each config; returns their paths by name."""
    paths = {}
    for name, options in configs.items():
        paths[name] = str(Path(folder) / f'{name}.py')
        recipe(data, **options).dump(paths[name])
    return paths


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    return root


@pytest.fixture(scope='session')
def paths(images, tmp_path_factory):
    """Configs by name: a teacher of width 8, an assistant of 6, students of 4."""
    return write(
        tmp_path_factory.mktemp('configs'),
        images,
        teacher=dict(width=8),
        plain=dict(width=4),
        assistant=dict(width=6, teacher=anyone(8)),
        student=dict(width=4, teacher=anyone(6)),
    )


def three(paths):
    """Teacher, assistant and student."""
    return dict(
        teacher=dict(config=paths['teacher']),
        assistant=dict(config=paths['assistant'], teacher='teacher'),
        student=dict(config=paths['student'], teacher='assistant'),
    )


def anyone(width):
    """Options of a config with a teacher that a chain is to replace."""
    return dict(config=tiny_classifier(width), checkpoint='random')


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def run(stages, work_dir, **options):
    """Run a chain in silence; returns its lines and products."""
    said = []
    products = Chain(stages, str(work_dir), **options).run(say=said.append)
    return said, products


def in_child(function):
    """Run it in a process of its own; returns its exit status, below 0 for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)
