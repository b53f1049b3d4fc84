_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

_base_.model.backbone.update(
    depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')
)
_base_.model.neck.in_channels = [64, 128, 256, 512]
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        checkpoint='released',
    ),
    objectives=dict(fgfi=dict(type='mmkd.FGFI', weight=dict(start=400))),
)
