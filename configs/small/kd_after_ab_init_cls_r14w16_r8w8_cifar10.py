# Second phase of AB, as the authors': KD at T = 3 without the factor T^2, and no labels (configs/chains/ab_kd_cls_cifar10.py).
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(kd=dict(type='mmkd.KD', tau=3, weight=1 / 9)),
    task_weight=0,
)
