_base_ = ['_base_/cifar100.py']

model = dict(backbone=dict(type='mmkd.CifarResNet', depth=8, base_channels=64, stem_channels=32))
