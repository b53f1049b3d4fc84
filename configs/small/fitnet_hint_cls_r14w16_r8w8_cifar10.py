# First phase of FitNet: the student up to the hint.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(fitnet=dict(type='mmkd.FitNet')),
    task_weight=0,
)
still = dict(lr_mult=0, decay_mult=0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.layer3': still, 'head': still}))
