"""Datasets of mmkd's own, a generator of synthetic ones and a guard against bad data.

A dataset class is there when the package it builds on is: BCCD needs mmdet, CamVid mmseg.
"""

from importlib.util import find_spec

from mmkd.datasets.cifar import Cifar10, Cifar100
from mmkd.datasets.class_folders import ClassFolders
from mmkd.datasets.hold_out import hold_out
from mmkd.datasets.scenes import Scene, generate_scene
from mmkd.datasets.specialist_classes import specialist_classes
from mmkd.datasets.transforms import (
    ColorJitter,
    LoadImageOnce,
    PackClassInputs,
    RandomCrop,
    RandomResizedCrop,
)

__all__ = [
    'Cifar10',
    'Cifar100',
    'ClassFolders',
    'ColorJitter',
    'LoadImageOnce',
    'PackClassInputs',
    'RandomCrop',
    'RandomResizedCrop',
    'Scene',
    'generate_scene',
    'hold_out',
    'specialist_classes',
]

if find_spec('mmdet'):
    from mmkd.datasets.bccd import BCCDDataset

    __all__ += ['BCCDDataset']
if find_spec('mmseg'):
    from mmkd.datasets.camvid import CamVidDataset
    from mmkd.datasets.label_maps import LoadLabelMap

    __all__ += ['CamVidDataset', 'LoadLabelMap']
