_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(logit_standardization=dict(type='mmkd.LogitStandardization')),
    task_weight=0.1,
)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
