# First phase of FT: a paraphraser learns on the teacher; of the student only BatchNorm statistics move.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(ft=dict(type='mmkd.FT', phase='paraphraser', weight=1)),
    task_weight=0,
)
still = dict(lr_mult=0, decay_mult=0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': still, 'head': still}))
