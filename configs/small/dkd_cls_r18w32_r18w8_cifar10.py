_base_ = ['cls_r18w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r18w32_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(dkd=dict(type='mmkd.DKD')),
)
