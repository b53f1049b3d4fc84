_base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb4-40k_voc12aug-512x512.py']
_base_.model.update(pretrained='open-mmlab://resnet18_v1c')
_base_.model.backbone.depth = 18
_base_.model.decode_head.update(in_channels=512, channels=128)
_base_.model.auxiliary_head.update(in_channels=256, channels=64)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb4-40k_voc12aug-512x512.py',
        checkpoint='released',
    ),
    objectives=dict(
        skd_pixel=dict(type='mmkd.SKDPixel'),
        cirkd=dict(type='mmkd.CIRKD'),
        memory=dict(type='mmkd.CIRKDMemory', weight=0.01),
    ),
)
