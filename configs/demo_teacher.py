_base_ = ['_base_/synthetic_frcnn.py']

model = dict(
    backbone=dict(base_channels=24),
    neck=dict(in_channels=[48, 96, 192], out_channels=48),
    rpn_head=dict(in_channels=48, feat_channels=48),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=48),
        bbox_head=dict(in_channels=48, fc_out_channels=192),
    ),
)
