# The teacher of the mask protocol: ResNet-18 of width 32, FPN and mask head of width 64.
_base_ = ['../_base_/scenes_maskrcnn.py']

roi = dict(out_channels=64)
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=roi,
        bbox_head=dict(in_channels=64),
        mask_roi_extractor=roi,
        mask_head=dict(in_channels=64, conv_out_channels=64),
    ),
)
