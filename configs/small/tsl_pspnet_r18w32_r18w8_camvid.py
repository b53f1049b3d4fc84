_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/pspnet_r18w32_camvid.py',
        checkpoint='last',
    ),
    # A tenth of a trained student's task loss: the term grows with the fourth power of the logits.
    objectives=dict(tsl=dict(type='mmkd.TSL', factors=dict(consistency=1e-5))),
)
