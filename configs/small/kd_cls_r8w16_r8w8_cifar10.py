_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r8w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
