# Three teachers, trained with seeds 0, 1 and 2; the student learns from the mean of their probabilities.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        type='mmkd.Ensemble',
        mean='probability',
        tau=4.0,
        members=dict(
            s0=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s0'),
            s1=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s1'),
            s2=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s2'),
        ),
    ),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
