# The RetinaNet student of the BCCD protocol: ResNet-18 of width 8, FPN and head of width 16.
_base_ = ['../_base_/bccd_retinanet.py']

model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16),
)
