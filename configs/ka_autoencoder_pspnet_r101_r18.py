# First phase of KA: the auto-encoder learns on the teacher; of the student only BatchNorm statistics move.
_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='released',
    ),
    objectives=dict(ka=dict(type='mmkd.KA', phase='autoencoder')),
    task_weight=0,
)
still = dict(lr_mult=0, decay_mult=0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': still, 'head': still}))
train_cfg = dict(max_iters=372, val_interval=372)  # one epoch
