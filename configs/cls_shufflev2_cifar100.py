_base_ = ['_base_/cifar100.py']

model = dict(backbone=dict(type='mmkd.CifarShuffleNetV2'))
optim_wrapper = dict(optimizer=dict(lr=0.01))
