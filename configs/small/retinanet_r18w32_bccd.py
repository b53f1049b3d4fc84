# The RetinaNet teacher of the BCCD protocol: ResNet-18 of width 32, FPN and head of width 64.
_base_ = ['../_base_/bccd_retinanet.py']

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
)
