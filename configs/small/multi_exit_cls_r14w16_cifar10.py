# Three exits: scale 10 / 3 and c 0.5, so that the last exit's own loss has the factor 1.667.
_base_ = ['cls_r14w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(multi_exit=dict(type='mmkd.MultiExit')),
    task_weight=1.667,
)
