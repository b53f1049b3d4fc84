_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py']

adam = dict(type='Adam', lr=4e-4, betas=(0.9, 0.99))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='released',
    ),
    objectives=dict(
        skd_pixel=dict(type='mmkd.SKDPixel', reduction='element_mean'),
        skd_holistic=dict(type='mmkd.SKDHolistic', student_factor=0.01, optimizer=adam),
        ifvd=dict(type='mmkd.IFVD'),
    ),
)
