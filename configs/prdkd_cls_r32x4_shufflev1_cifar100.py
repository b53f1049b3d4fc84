_base_ = ['_base_/prdkd_cifar100.py']

model = dict(
    type='mmkd.Distiller',
    student=dict(backbone=dict(type='mmkd.CifarShuffleNet')),
    teacher=dict(config='mmkd::cls_r32x4_cifar100.py'),
    objectives=dict(prdkd=dict(type='mmkd.PRDKD')),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
