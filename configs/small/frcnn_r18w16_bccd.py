# Between teacher and student of the BCCD protocol: ResNet-18 of width 16, FPN of width 32.
_base_ = ['../_base_/bccd_frcnn.py']

model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32)),
)
