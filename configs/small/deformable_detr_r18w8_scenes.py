_base_ = ['../_base_/scenes_deformable_detr.py']

model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[32, 64]),
)
