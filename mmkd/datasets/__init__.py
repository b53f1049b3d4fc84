"""Datasets of mmkd's own, a generator of synthetic ones and a guard against bad data.

A dataset class is there when the package it builds on is: BCCD needs mmdet, CamVid mmseg.
"""

from importlib.util import find_spec

from mmkd.datasets.scenes import Scene, generate_scene

__all__ = ['Scene', 'generate_scene']

if find_spec('mmdet'):
    from mmkd.datasets.bccd import BCCDDataset

    __all__ += ['BCCDDataset']
if find_spec('mmseg'):
    from mmkd.datasets.camvid import CamVidDataset

    __all__ += ['CamVidDataset']
