"""Kinds of teacher besides the frozen network of :mod:`mmkd.teacher`, one file each."""

from mmkd.teachers.anchors import Anchors
from mmkd.teachers.ensemble import Ensemble
from mmkd.teachers.kinds import build_teacher, is_teacher, kind_of
from mmkd.teachers.momentum import Momentum
from mmkd.teachers.snapshot import Snapshot

__all__ = ['Anchors', 'Ensemble', 'Momentum', 'Snapshot', 'build_teacher', 'is_teacher', 'kind_of']
