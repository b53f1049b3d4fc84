# The teacher of OD-200FPS on BCCD: YOLOv3 on a ResNet-18 of width 32.
_base_ = ['../_base_/bccd_yolov3.py']

model = dict(
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=32,
        out_indices=(2, 3),
        frozen_stages=-1,
        norm_eval=False,
    ),
    neck=dict(in_channels=[256, 128], out_channels=[128, 64]),
    bbox_head=dict(in_channels=[128, 64], out_channels=[256, 128]),
)
