_base_ = ['cls_r18w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::cls_r18w32_cifar10.py',
        checkpoint='work_dirs/cls_r18w32_cifar10/epoch_10.pth',
    ),
    objectives=dict(dkd=dict(type='mmkd.DKD')),
)
