_base_ = ['_base_/prdkd_cifar100.py']

model = dict(
    type='mmkd.Distiller',
    student=dict(backbone=dict(type='mmkd.CifarVGG', depth=8)),
    teacher=dict(config='mmkd::cls_vgg13_cifar100.py'),
    objectives=dict(prdkd=dict(type='mmkd.PRDKD')),
)
