_base_ = ['cls_wrn16x2_cifar100.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::cls_wrn40x2_cifar100.py',
        checkpoint='last',
    ),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
