_base_ = ['_base_/prdkd_cifar100.py']

model = dict(
    type='mmkd.Distiller',
    student=dict(backbone=dict(type='mmkd.WideResNet', depth=16, widen_factor=2)),
    teacher=dict(config='mmkd::cls_wrn40x2_cifar100.py'),
    objectives=dict(prdkd=dict(type='mmkd.PRDKD')),
)
