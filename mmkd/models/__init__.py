"""The classifier under which backbones are pretrained, small backbones for 32 x 32 pixels, and one
of small detectors.

Backbones of mmdet, mmseg and mmengine's registries work as well. A backbone may say where its
parts are, in names relative to itself: ``stem``, ``stages``, ``preacts`` and ``preact_norms``; see
:mod:`mmkd.families.classifier`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmkd.models.bottleneck_resnet import CifarBottleneckResNet
from mmkd.models.cifar_resnet import CifarResNet
from mmkd.models.image_classifier import Classifier
from mmkd.models.mobile_net import CifarMobileNetV2
from mmkd.models.preprocessor import ClassificationDataPreprocessor
from mmkd.models.projector import BottleneckProjector
from mmkd.models.shuffle_net import CifarShuffleNet, CifarShuffleNetV2
from mmkd.models.tiny_darknet import TinyDarknet
from mmkd.models.vgg import CifarVGG
from mmkd.models.wide_resnet import WideResNet
from mmkd.registry import MODELS

__all__ = [
    'BottleneckProjector',
    'CifarBottleneckResNet',
    'CifarMobileNetV2',
    'CifarResNet',
    'CifarShuffleNet',
    'CifarShuffleNetV2',
    'CifarVGG',
    'Classifier',
    'ClassificationDataPreprocessor',
    'TinyDarknet',
    'WideResNet',
]

#: imported when they are asked for, with mmdet
_POSTPONED: dict[str, str] = {}
if find_spec('mmdet'):
    _POSTPONED |= {
        'MILRoIHead': 'mmkd.models.mil_head',
        'WeakDetector': 'mmkd.models.weak_detector',
    }
    MODELS.postpone(_POSTPONED)
__all__ += [*_POSTPONED]


def __getattr__(name: str) -> Any:
    if name not in _POSTPONED:
        raise AttributeError(name)
    return getattr(import_module(_POSTPONED[name]), name)
