# Between teacher and student of the CIFAR-10 protocol: as shallow as one, as wide as the other.
_base_ = ['../_base_/cifar10_folders.py']

model = dict(backbone=dict(type='mmkd.CifarResNet', depth=8, base_channels=16))
