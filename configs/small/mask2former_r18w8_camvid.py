# The student of the CamVid protocol with masks: Mask2Former, ResNet-18 of width 8.
_base_ = ['../_base_/camvid_mask2former.py']

model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64]),
)
