_base_ = ['_base_/prdkd_cifar100.py']

model = dict(
    type='mmkd.Distiller',
    student=dict(
        backbone=dict(type='mmkd.CifarResNet', depth=8, base_channels=64, stem_channels=32)
    ),
    teacher=dict(config='mmkd::cls_r32x4_cifar100.py'),
    objectives=dict(prdkd=dict(type='mmkd.PRDKD')),
)
