# The teacher of the CIFAR-10 protocol: ResNet-14 of width 16.
_base_ = ['../_base_/cifar10_folders.py']

model = dict(backbone=dict(type='mmkd.CifarResNet', depth=14, base_channels=16))
