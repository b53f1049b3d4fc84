# Three teachers, trained with seeds 0, 1 and 2; the student's own losses are not computed.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        s0=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s0'),
        s1=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s1'),
        s2=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='work_dirs/cls_s2'),
    ),
    objectives=dict(endd=dict(type='mmkd.EnDD', teacher_name=['s0', 's1', 's2'])),
    task_weight=None,
)
optim_wrapper = dict(
    clip_grad=dict(max_norm=10),
    optimizer=dict(_delete_=True, type='Adam', lr=1e-2, weight_decay=5e-4),
)
val_evaluator = [dict(type='mmkd.Accuracy'), dict(type='mmkd.Calibration', dirichlet=True)]
