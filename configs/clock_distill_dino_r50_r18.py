_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']

_base_.model.backbone.update(
    depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')
)
_base_.model.neck.in_channels = [128, 256, 512]
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        checkpoint='released',
    ),
    objectives=dict(clock=dict(type='mmkd.CLoCKDistill')),
)
