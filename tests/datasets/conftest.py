"""Synthetic datasets to spoil."""

import shutil

import pytest

from mmkd.datasets.scenes import CLASSES, PALETTE
from mmkd.datasets.synthetic import write_cityscapes, write_coco, write_voc

LOAD = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}]
FLIP = [{'type': 'mmdet.RandomFlip', 'prob': 0.5}, {'type': 'mmdet.PackDetInputs'}]


@pytest.fixture(scope='session')
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp('originals')
    writers = {'coco': write_coco, 'voc': write_voc, 'cityscapes': write_cityscapes}
    return {name: write(root / name, 6, 2, size=(64, 48)) for name, write in writers.items()}


@pytest.fixture
def data(originals, tmp_path):
    """Copies to spoil: ``data('voc')`` is (folder, dataset config)."""

    def get(name):
        root = tmp_path / name
        shutil.copytree(originals[name], root)
        # Unserialised: mmengine collects garbage at every serialisation, which takes a while.
        return root, {**CONFIGS[name], 'data_root': str(root), 'serialize_data': False}

    return get


CONFIGS = {
    'coco': {
        'type': 'mmdet.CocoDataset',
        'ann_file': 'annotations/train.json',
        'data_prefix': {'img': 'train/'},
        'metainfo': {'classes': CLASSES, 'palette': PALETTE},
        'pipeline': LOAD + FLIP,
    },
    'voc': {
        'type': 'mmdet.VOCDataset',
        'ann_file': 'VOC2007/ImageSets/Main/train.txt',
        'data_prefix': {'sub_data_root': 'VOC2007/'},
        'metainfo': {'classes': CLASSES, 'palette': PALETTE},
        'filter_cfg': {'filter_empty_gt': True, 'min_size': 32},
        'pipeline': LOAD + FLIP,
    },
    'cityscapes': {
        'type': 'mmseg.CityscapesDataset',
        'data_prefix': {'img_path': 'leftImg8bit/train', 'seg_map_path': 'gtFine/train'},
        'pipeline': [
            {'type': 'mmseg.LoadImageFromFile'},
            {'type': 'mmseg.LoadAnnotations'},
            {'type': 'mmseg.PackSegInputs'},
        ],
    },
}
