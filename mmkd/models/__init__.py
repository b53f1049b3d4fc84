"""The classifier under which backbones are pretrained, and small backbones for 32 x 32 pixels.

Backbones of mmdet, mmseg and mmengine's registries work as well. A backbone may say where its
parts are, in names relative to itself: ``stem``, ``stages``, ``preacts`` and ``preact_norms``; see
:mod:`mmkd.families.classifier`.
"""

from mmkd.models.cifar_resnet import CifarResNet
from mmkd.models.image_classifier import Classifier
from mmkd.models.preprocessor import ClassificationDataPreprocessor
from mmkd.models.projector import BottleneckProjector
from mmkd.models.vgg import CifarVGG
from mmkd.models.wide_resnet import WideResNet

__all__ = [
    'BottleneckProjector',
    'CifarResNet',
    'CifarVGG',
    'Classifier',
    'ClassificationDataPreprocessor',
    'WideResNet',
]
