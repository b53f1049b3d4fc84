"""Configs with ``read_base`` and imported types, wherever a config may be given."""

import pytest
import torch
from mmengine.config import Config

from mmkd.config import distils, load_config
from mmkd.datasets.synthetic import write_coco
from mmkd.engine.launch import train
from mmkd.engine.wrapping import wrap_stock
from mmkd.teacher import Teacher

DATA = """
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs

pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=PackDetInputs),
]
dataset = dict(
    type=CocoDataset,
    data_root='{root}',
    metainfo=dict(classes=('disc', 'square', 'triangle')),
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    pipeline=pipeline,
)
"""
STUDENT = """
from mmdet.models import FPN, DetDataPreprocessor, ResNet, RetinaHead, RetinaNet
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.optim import SGD

with read_base():
    from .data import *

default_scope = None
anchors = dict(type=AnchorGenerator, octave_base_scale=4, scales_per_octave=1, ratios=[1.0])
anchors.update(strides=[8, 16, 32])
assigner = dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=4, norm_cfg=dict(type='BN')),
    neck=dict(
        type=FPN, in_channels=[4, 8, 16, 32], out_channels=8, start_level=1, num_outs=3
    ),
    bbox_head=dict(
        type=RetinaHead,
        num_classes=3,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        anchor_generator=anchors,
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
    ),
    train_cfg=dict(assigner=assigner, allowed_border=-1, pos_weight=-1, debug=False),
)
sampler = dict(type=DefaultSampler, shuffle=True)
train_dataloader = dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dataset)
train_cfg = dict(type=IterBasedTrainLoop, max_iters=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1, by_epoch=False))
"""
DISTIL = """
from mmengine.config import read_base

from mmkd import Distiller
from mmkd.methods import FGFI

with read_base():
    from .student import *

model = dict(
    type=Distiller,
    student=model,
    teacher=dict(config='{root}/student.py', checkpoint='random'),
    objectives=dict(fgfi=dict(type=FGFI)),
)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """With data, ``student.py`` and ``distil.py``, and what one step of the latter has written."""
    root = tmp_path_factory.mktemp('new_style')
    write_coco(root, n_train=2, n_val=1, size=(96, 64))
    for name, text in (('data', DATA), ('student', STUDENT), ('distil', DISTIL)):
        (root / f'{name}.py').write_text(text.replace('{root}', str(root)))
    train(load_config(str(root / 'distil.py')), work_dir=str(root / 'out'))
    return root


def test_such_a_config_trains_and_its_checkpoints_hold_the_plain_students(folder):
    checkpoint = torch.load(folder / 'out' / 'iter_1.pth', weights_only=False)
    found = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    assert found.model.to_dict() == load_config(str(folder / 'student.py')).model.to_dict()
    assert found.model.type == 'mmdet.models.RetinaNet'


@pytest.mark.parametrize('name', ['student', 'distil'])
def test_as_a_teacher(folder, name):
    """A distillation config stands for its student."""
    teacher = Teacher(str(folder / f'{name}.py'), str(folder / 'out' / 'iter_1.pth'))
    assert type(teacher.model).__name__ == 'RetinaNet' and teacher.loaded_keys > 100


def test_wrapped_by_the_tools_it_gives_a_file_that_trains(folder, tmp_path):
    teacher = str(folder / 'distil.py'), str(folder / 'out' / 'iter_1.pth')
    config, text = wrap_stock(str(folder / 'student.py'), *teacher, 'CWD')
    (tmp_path / 'written.py').write_text(text)
    written = load_config(str(tmp_path / 'written.py'))
    assert written.model.to_dict() == config.model.to_dict()
    runner = train(written, work_dir=str(tmp_path / 'out'))
    assert runner.iter == 1 and list(runner.model.objectives) == ['cwd']
    with pytest.raises(ValueError, match='distils already'):
        wrap_stock(str(folder / 'distil.py'), *teacher, 'CWD')


def test_types_are_known_as_names_paths_and_classes(folder):
    config = load_config(str(folder / 'distil.py'))
    assert distils(config.model) and not distils(config.model.student)
    for kind in ('mmkd.Distiller', 'mmkd.distiller.Distiller', 'Distiller'):
        assert distils(dict(type=kind))
    assert not distils(dict(type='mmdet.RetinaNet')) and not distils(dict(depth=18))
