# Edges and bodies of classes, and features through an ensemble of three projectors.
_base_ = ['mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py']

tap = 'decode_head.bottleneck'
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='released',
    ),
    objectives=dict(
        bpkd=dict(type='mmkd.BPKD'),
        feature=dict(type='mmkd.FitNet', student=tap, adapt='ensemble3', weight=1.0),
    ),
)
