# ResDist, JOINT: the whole ResNet-14 learns beside the one without identity shortcuts, which hears its tails.
_base_ = ['cls_r14w16_cifar10.py']

edits = [dict(type='mmkd.NoShortcuts'), dict(type='mmkd.Dirac')]
falling = dict(value=1, decay='cosine', end_value=0.5)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=dict(type='mmkd.Edited', model=_base_.model, edits=edits),
    peers=dict(teacher=_base_.model),
    objectives=dict(resdist=dict(type='mmkd.ResDist', teacher_name='teacher', m=falling, w=1e-3)),
    task_weight=1 / 3,
)
