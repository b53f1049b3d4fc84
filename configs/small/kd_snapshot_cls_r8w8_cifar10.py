# Snapshot distillation: three cycles, in the second and third of which the student of the last is the teacher.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Snapshot', cycles=3),
    objectives=dict(kd=dict(type='mmkd.KD', tau=3, student_tau=1, reduction='cross_entropy')),
    task_weight=1 + 1 / 3,
)
param_scheduler = dict(
    _delete_=True,
    type='CosineRestartLR',
    periods=[10, 10, 10],
    restart_weights=[1, 1, 1],
    eta_min=0,
    convert_to_iter_based=True,
)
