# An embedding for verification: the student's regresses those neurons of the teacher's that `mmkd make Neurons` has chosen.
_base_ = ['cls_r8w8_cifar10.py']

fitnet = dict(student='pool', teacher='pool{}', adapt='auto', variant='paper', weight=1.0)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(fitnet=dict(type='mmkd.FitNet', **fitnet)),
    task_weight=None,
)
val_evaluator = dict(_delete_=True, type='mmkd.Verification', pairs=6000)
test_evaluator = val_evaluator
