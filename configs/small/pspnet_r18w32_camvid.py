# The teacher of the CamVid protocol: ResNet-18 of width 32, pyramid pooling of width 128.
_base_ = ['../_base_/camvid_pspnet.py']

model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(in_channels=256, channels=128),
)
