# ResDist: a ResNet-14 without identity shortcuts, in the Dirac form, through the tails of the whole one.
_base_ = ['cls_r14w16_cifar10.py']

falling = dict(value=1, decay='cosine', end_value=0.5)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(resdist=dict(type='mmkd.ResDist', m=falling, w=1e-3)),
    edits=[dict(type='mmkd.NoShortcuts'), dict(type='mmkd.Dirac')],
    task_weight=1 / 3,
)
