# First phase of InformationFlow: a network built like the student learns from the teacher's embedding.
_base_ = ['cls_r8w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(flow=dict(type='mmkd.InformationFlow', student='pool')),
)
