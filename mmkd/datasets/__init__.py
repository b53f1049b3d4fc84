"""Datasets of mmkd's own, a generator of synthetic ones and a guard against bad data.

A dataset class is there when the package it builds on is: BCCD needs mmdet, CamVid mmseg.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmkd.datasets._kinds import loads_masks
from mmkd.datasets.answered_images import AnsweredImages
from mmkd.datasets.cifar import Cifar10, Cifar100
from mmkd.datasets.class_folders import ClassFolders
from mmkd.datasets.hold_out import hold_out
from mmkd.datasets.join_labels import JoinLabels
from mmkd.datasets.no_images import NoImages
from mmkd.datasets.paired_views import KeepView, LoadView, PackViews, SplitViews
from mmkd.datasets.proposals import (
    GridProposals,
    ImageLabels,
    LoadProposals,
    ProposalsToImage,
)
from mmkd.datasets.scenes import Scene, generate_scene
from mmkd.datasets.shard import Shard
from mmkd.datasets.specialist_classes import specialist_classes
from mmkd.datasets.superpixels import Superpixels
from mmkd.datasets.transforms import (
    ColorJitter,
    LoadImageOnce,
    PackClassInputs,
    RandomCrop,
    RandomResizedCrop,
)
from mmkd.datasets.unlabelled import (
    AlternatingSampler,
    DropLabels,
    ImageFolder,
    MixedSampler,
    Unlabelled,
)
from mmkd.registry import DATASETS, TRANSFORMS

__all__ = [
    'AlternatingSampler',
    'AnsweredImages',
    'Cifar10',
    'Cifar100',
    'ClassFolders',
    'ColorJitter',
    'DropLabels',
    'GridProposals',
    'ImageFolder',
    'ImageLabels',
    'JoinLabels',
    'KeepView',
    'LoadImageOnce',
    'LoadProposals',
    'LoadView',
    'MixedSampler',
    'NoImages',
    'PackClassInputs',
    'PackViews',
    'ProposalsToImage',
    'RandomCrop',
    'RandomResizedCrop',
    'Scene',
    'Shard',
    'SplitViews',
    'Superpixels',
    'Unlabelled',
    'generate_scene',
    'hold_out',
    'loads_masks',
    'specialist_classes',
]

#: imported when they are asked for: a detector's run does not wait for mmseg
_POSTPONED: dict[str, str] = {}
if find_spec('mmdet'):
    DATASETS.postpone(_BOXES := {'BCCDDataset': 'mmkd.datasets.bccd'})
    _POSTPONED |= _BOXES
if find_spec('mmseg'):
    DATASETS.postpone(_MAPS := {'CamVidDataset': 'mmkd.datasets.camvid'})
    TRANSFORMS.postpone(_LABELS := {'LoadLabelMap': 'mmkd.datasets.label_maps'})
    _POSTPONED |= _MAPS | _LABELS
__all__ += [*_POSTPONED]


def __getattr__(name: str) -> Any:
    if name not in _POSTPONED:
        raise AttributeError(name)
    return getattr(import_module(_POSTPONED[name]), name)
