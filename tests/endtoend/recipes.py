"""Whole runs in seconds: tiny real models on synthetic data, as configs."""

import copy
import itertools
import os

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmkd.datasets.scenes import CLASSES, PALETTE
from mmkd.datasets.synthetic import write_cityscapes, write_coco
from mmkd.testing import tiny_faster_rcnn, tiny_pspnet, tiny_retinanet

SIZE = (96, 64)  # width, height
_numbers = itertools.count()

MODELS = dict(
    frcnn=lambda **k: tiny_faster_rcnn(num_classes=5, **k),
    retinanet=lambda **k: tiny_retinanet(num_classes=5, **k),
    pspnet=lambda **k: tiny_pspnet(num_classes=19, **k),
)
METHODS = dict(frcnn='FGFI', retinanet='FGFI', pspnet='CWD')


def detection_data(root):
    """Dataloaders and evaluator of a detector."""
    write_coco(root, n_train=8, n_val=4, size=SIZE)
    metainfo = dict(classes=CLASSES, palette=PALETTE)

    def dataset(split, *pipeline):
        return dict(
            type='mmdet.CocoDataset',
            data_root=str(root),
            metainfo=metainfo,
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            test_mode=split == 'val',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmdet.LoadAnnotations', with_bbox=True),
                *pipeline,
            ],
        )

    flip = dict(type='mmdet.RandomFlip', prob=0.5)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    train = dataset('train', flip, dict(type='mmdet.PackDetInputs'))
    resize = dict(type='mmdet.Resize', scale_factor=1.0)
    val = dataset('val', resize, dict(type='mmdet.PackDetInputs', meta_keys=keys))
    metric = dict(
        type='mmdet.CocoMetric', ann_file=str(root / 'annotations' / 'val.json'), metric='bbox'
    )
    return train, val, metric


def segmentation_data(root):
    """Dataloaders and evaluator of a segmentor."""
    write_cityscapes(root, n_train=8, n_val=4, size=SIZE)

    def dataset(split, *pipeline):
        return dict(
            type='mmseg.CityscapesDataset',
            data_root=str(root),
            data_prefix=dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'),
            test_mode=split == 'val',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmseg.LoadAnnotations'),
                *pipeline,
                dict(type='mmseg.PackSegInputs'),
            ],
        )

    flip = dict(type='mmseg.RandomFlip', prob=0.5)
    return dataset('train', flip), dataset('val'), dict(type='mmseg.IoUMetric')


def recipe(kind, data, work_dir, model=None, iterations=4, **changes):
    """A complete config that trains ``MODELS[kind]`` (or ``model``) on two images a step."""
    make = segmentation_data if kind == 'pspnet' else detection_data
    train, val, metric = make(data)

    def loader(dataset, shuffle):
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            dataset=dataset,
        )

    config = Config(
        dict(
            default_scope='mmseg' if kind == 'pspnet' else 'mmdet',
            model=copy.deepcopy(model or MODELS[kind]()),
            work_dir=str(work_dir),
            experiment_name=f'{kind}_{os.getpid()}_{next(_numbers)}',
            train_dataloader=loader(train, True),
            val_dataloader=loader(val, False),
            test_dataloader=loader(val, False),
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=1000),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=3),
            log_level='WARNING',
        )
    )
    config.merge_from_dict(changes)
    return config


def distilled(kind, teacher='random', weight=None, **options):
    """Model mapping of a Distiller: a wider teacher, the family's own method."""
    objective = dict(type=f'mmkd.{METHODS[kind]}')
    if weight is not None:
        objective['weight'] = weight
    return dict(
        type='mmkd.Distiller',
        student=MODELS[kind](),
        teacher=dict(config=MODELS[kind](width=16), checkpoint=teacher),
        objectives=dict(kd=objective),
        **options,
    )


def python_path(*folders):
    """PYTHONPATH of a process of its own: these folders before those of this one."""
    known = os.environ.get('PYTHONPATH')
    return os.pathsep.join([*map(str, folders), *([known] if known else [])])


class Curve(Hook):
    """Remembers every logged loss of every step, exactly."""

    def __init__(self):
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(
            {k: float(v.detach()) for k, v in outputs.items() if not k.startswith('kd.')}
        )


def run(runner):
    """Train with one thread and return (curve, final weights of the plain student)."""
    torch.set_num_threads(1)
    curve = Curve()
    runner.register_hook(curve)
    runner.train()
    weights = runner.model.state_dict()
    return curve.steps, {k: v for k, v in weights.items() if not k.startswith('objectives.')}
