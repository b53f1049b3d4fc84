"""What to try, for errors of other packages."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS

from mmkd.errors.ending import describe
from mmkd.teacher import build_model


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(function, *arguments):
    with pytest.raises(Exception) as info:
        function(*arguments)
    return describe(info.value)


@pytest.mark.parametrize(
    ('text', 'advice'),
    [
        ('raise ModuleNotFoundError("", name="sklearn")', 'pip install scikit-learn'),
        ('import panopticapi', 'pip install git+https://github.com/cocodataset/panopticapi.git'),
        ('import my_own_module', 'Install my_own_module, or add the folder in which it lies'),
        ('raise ImportError("please install mmpretrain first")', 'pip install onedl-mmpretrain'),
        ('raise RuntimeError("CUDA out of memory. Tried …")', 'Lower batch_size'),
        ('raise RuntimeError("DataLoader worker (pid 3) is killed by signal")', 'num_workers'),
    ],
)
def test_advice(text, advice):
    assert advice in said(exec, text).splitlines()[-1]


def test_objects_without_masks():
    from mmkd.testing import detection_batch, tiny_mask_rcnn

    model = build_model(tiny_mask_rcnn(4))
    assert said(model.loss, *detection_batch()).endswith(
        'The objects of this batch have no masks: set LoadAnnotations(with_bbox=True, '
        'with_mask=True) in train_dataloader.dataset.pipeline.'
    )


def test_a_metric_that_is_not_measured():
    hook = CheckpointHook(save_best='accuracy/top1', rule='greater')
    runner = SimpleNamespace(epoch=1, iter=3)
    advice = "save_best='accuracy/top1' is no metric of the validation, which has top1, top5."
    assert advice in said(hook.after_val_epoch, runner, dict(top1=50.0, top5=90.0))


def test_the_file_that_cannot_be_read():
    Path('labels.json').write_text('{"images": [}')

    def read(ann_file):

        with open(ann_file) as file:
            return json.load(file)

    assert said(read, 'labels.json').endswith('The file is labels.json.')


@pytest.mark.parametrize(
    ('registry', 'entry', 'advice'),
    [
        (HOOKS, dict(type='CheckpontHook'), "Did you mean 'CheckpointHook'?"),
        (HOOKS, dict(type='OverheadHook'), "Did you mean 'mmkd.OverheadHook'?"),
        (HOOKS, dict(type='mmkd.OverheadHok'), "Did you mean 'mmkd.OverheadHook'?"),
        (DATASETS, dict(type='mmdet.CoccoDataset'), "Did you mean 'mmdet.CocoDataset'?"),
        (HOOKS, dict(type='mmkd.OverheadHook', step=1), "warmup, steps. Did you mean 'steps'?"),
    ],
)
def test_names_that_a_registry_does_not_have(registry, entry, advice):
    text = said(registry.build, entry)
    assert text.endswith(advice) and 'Please check' not in text


def test_an_optimiser_that_is_not_there():
    config = dict(type='OptimWrapper', optimizer=dict(type='SDG', lr=0.1))
    text = said(build_optim_wrapper, torch.nn.Linear(1, 1), config)
    assert text.endswith("There is no optimizer SDG. Did you mean 'SGD'?")
