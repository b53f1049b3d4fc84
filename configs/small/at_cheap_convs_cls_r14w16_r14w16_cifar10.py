# Moonshine: the teacher's own architecture with cheap convolutions learns its attention maps.
_base_ = ['cls_r14w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(at=dict(type='mmkd.AT')),
    edits=[dict(type='mmkd.CheapConvs', bottleneck=2, groups=4)],
)
