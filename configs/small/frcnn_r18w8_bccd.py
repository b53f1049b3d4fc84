# The student of the BCCD protocol: ResNet-18 of width 8, FPN of width 16.
_base_ = ['../_base_/bccd_frcnn.py']

model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16)),
)
