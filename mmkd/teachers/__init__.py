"""Kinds of teacher besides the frozen network of :mod:`mmkd.teacher`, one file each."""

from mmkd.teachers.anchors import Anchors
from mmkd.teachers.cached import Cached
from mmkd.teachers.ensemble import Ensemble
from mmkd.teachers.follower import Follower
from mmkd.teachers.function import Function
from mmkd.teachers.fused_teacher import FusedTeacher
from mmkd.teachers.kinds import build_teacher, frozen_networks, is_teacher, kind_of
from mmkd.teachers.momentum import Momentum
from mmkd.teachers.neighbours import Neighbours, groups_of
from mmkd.teachers.onnx import Onnx
from mmkd.teachers.snapshot import Snapshot
from mmkd.teachers.vision_model import VisionModel

__all__ = [
    'Anchors',
    'Cached',
    'Ensemble',
    'Follower',
    'Function',
    'FusedTeacher',
    'Momentum',
    'Neighbours',
    'Onnx',
    'Snapshot',
    'VisionModel',
    'build_teacher',
    'frozen_networks',
    'groups_of',
    'is_teacher',
    'kind_of',
]
