# Three teachers of different seeds: train cls_r14w16_cifar10.py into the three work dirs named here.
_base_ = ['cls_r8w8_cifar10.py']

config = 'mmkd::small/cls_r14w16_cifar10.py'
seeds = ('s0', 's1', 's2')

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher={s: dict(config=config, checkpoint=f'work_dirs/cls_r14w16_cifar10_{s}') for s in seeds},
    objectives=dict(
        kd_s0=dict(type='mmkd.KD', teacher_name='s0', weight=0.3),
        kd_s1=dict(type='mmkd.KD', teacher_name='s1', weight=0.3),
        kd_s2=dict(type='mmkd.KD', teacher_name='s2', weight=0.3),
    ),
    task_weight=0.1,
    balance=dict(type='mmkd.AEKD', cap=0.6),
)
