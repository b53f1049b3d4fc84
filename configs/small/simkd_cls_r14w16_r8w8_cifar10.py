_base_ = ['cls_r8w8_cifar10.py']
# The projector stays in the student and leads to the teacher's linear layer, which it borrows.
_base_.model.projector = dict(type='mmkd.BottleneckProjector', out_channels=64)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(simkd=dict(type='mmkd.SimKD')),
    task_weight=0,
)
