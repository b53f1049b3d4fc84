# The student of the CamVid protocol: ResNet-18 of width 8, pyramid pooling of width 32.
_base_ = ['../_base_/camvid_pspnet.py']

model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=64, channels=32),
)
