# First phase of KA: the auto-encoder learns on the teacher; of the student only BatchNorm statistics move.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/pspnet_r18w32_camvid.py',
        checkpoint='last',
    ),
    objectives=dict(ka=dict(type='mmkd.KA', phase='autoencoder')),
    task_weight=0,
)
still = dict(lr_mult=0, decay_mult=0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': still, 'head': still}))
