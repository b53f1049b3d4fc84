# IFVD, whose gradient is kept at three tenths of the task's at its tap, instead of its published weight.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/pspnet_r18w32_camvid.py', checkpoint='last'),
    objectives=dict(ifvd=dict(type='mmkd.IFVD')),
    balance=dict(type='mmkd.GradientRatio', ratio=dict(ifvd=0.3)),
)
