_base_ = ['mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py']

_base_.model.backbone.update(
    depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')
)
_base_.model.neck.in_channels = [512]
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        checkpoint='released',
    ),
    objectives=dict(
        adaptive=dict(type='mmkd.DETRDistill', factors=dict(features=0, prior=0)),
        fixed=dict(type='mmkd.KDDETR', points=0, factors=dict(attention=1.0)),
    ),
)
