# Second phase of InformationFlow; the teacher is what the first one trained.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r8w16_cifar10.py',
        checkpoint='work_dirs/information_flow_auxiliary_cls_r14w16_r8w16_cifar10',
    ),
    objectives=dict(flow=dict(type='mmkd.InformationFlow')),
)
