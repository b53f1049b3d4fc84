# Second phase of KA.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/pspnet_r18w32_camvid.py',
        checkpoint='last',
    ),
    objectives=dict(ka=dict(type='mmkd.KA')),
)
load_from = 'work_dirs/ka_autoencoder_pspnet_r18w32_r18w8_camvid'
