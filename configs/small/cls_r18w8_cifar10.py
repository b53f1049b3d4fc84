# The backbone of frcnn_r18w8_bccd.py, pretrained alone.
_base_ = ['../_base_/cifar10_48.py']

model = dict(backbone=dict(base_channels=8))
