# Knowledge pre-regression: exits of both networks are compared beside their outputs, by KD at tau 4.
_base_ = ['cls_r14w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(
        pre_regression=dict(type='mmkd.PreRegression'),
        kd=dict(type='mmkd.KD', weight=0.9, tau=4),
    ),
    task_weight=0.1,
)
