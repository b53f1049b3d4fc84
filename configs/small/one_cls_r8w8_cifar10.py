_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(one=dict(type='mmkd.ONE')),
)
