_base_ = ['cls_r14w16_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(byot=dict(type='mmkd.BYOT')),
)
