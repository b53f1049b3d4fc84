# A teacher for cls_r18w8_cifar10.py.
_base_ = ['../_base_/cifar10_48.py']

model = dict(backbone=dict(base_channels=32))
