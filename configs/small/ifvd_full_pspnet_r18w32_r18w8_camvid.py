_base_ = ['pspnet_r18w8_camvid.py']

adam = dict(type='Adam', lr=4e-4, betas=(0.9, 0.99))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/pspnet_r18w32_camvid.py',
        checkpoint='last',
    ),
    objectives=dict(
        skd_pixel=dict(type='mmkd.SKDPixel', reduction='element_mean'),
        skd_holistic=dict(type='mmkd.SKDHolistic', width=16, student_factor=0.01, optimizer=adam),
        ifvd=dict(type='mmkd.IFVD'),
    ),
)
