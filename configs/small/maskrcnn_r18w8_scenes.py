# The student of the mask protocol: ResNet-18 of width 8, FPN and mask head of width 16.
_base_ = ['../_base_/scenes_maskrcnn.py']

roi = dict(out_channels=16)
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=roi,
        bbox_head=dict(in_channels=16),
        mask_roi_extractor=roi,
        mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
)
