# The student of the CIFAR-10 protocol: ResNet-8 of width 8.
_base_ = ['../_base_/cifar10_folders.py']

model = dict(backbone=dict(type='mmkd.CifarResNet', depth=8, base_channels=8))
