_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py']

_base_.model.backbone.update(
    depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')
)
_base_.model.neck.in_channels = [64, 128, 256, 512]
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
        checkpoint=(
            'https://download.openmmlab.com/mmdetection/v2.0/pascal_voc/faster_rcnn_r50_fpn_1x_voc0712/'
            'faster_rcnn_r50_fpn_1x_voc0712_20220320_192712-54bef0f3.pth'
        ),
    ),
    task_weight=dict(loss_cls=0.5, loss_rpn_cls=0.5),
    objectives=dict(chen2017=dict(type='mmkd.Chen2017')),
)
