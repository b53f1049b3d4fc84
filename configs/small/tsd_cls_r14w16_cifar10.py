# The teacher itself; students learn from its checkpoint by KD.
_base_ = ['cls_r14w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(tsd=dict(type='mmkd.TSD')),
    task_weight=0.6,
)
