_base_ = ['_base_/cifar100.py']

model = dict(backbone=dict(type='mmkd.WideResNet', depth=40, widen_factor=1))
