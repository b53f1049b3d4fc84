_base_ = ['../_base_/scenes_deformable_detr.py']

model = dict(
    backbone=dict(base_channels=24),
    neck=dict(in_channels=[96, 192]),
)
