_base_ = ['_base_/cifar100.py']

model = dict(backbone=dict(type='mmkd.CifarResNet', depth=32))
