_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py']

_base_.model.backbone.update(
    depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')
)
_base_.model.neck.in_channels = [128, 256, 512]
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        checkpoint='released',
    ),
    objectives=dict(points=dict(type='mmkd.KDDETR')),
)
