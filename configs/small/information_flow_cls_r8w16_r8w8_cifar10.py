# Second phase of InformationFlow; in configs/chains/information_flow_cls_cifar10.py its teacher is the auxiliary network.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r8w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(flow=dict(type='mmkd.InformationFlow')),
)
