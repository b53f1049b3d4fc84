_base_ = ['_base_/prdkd_cifar100.py']

model = dict(
    type='mmkd.Distiller',
    student=dict(backbone=dict(type='mmkd.CifarResNet', depth=32)),
    teacher=dict(config='mmkd::cls_r110_cifar100.py'),
    objectives=dict(prdkd=dict(type='mmkd.PRDKD', loss='kd')),
)
