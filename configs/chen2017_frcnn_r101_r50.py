_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
        checkpoint='released',
    ),
    task_weight=dict(loss_cls=0.5, loss_rpn_cls=0.5),
    objectives=dict(chen2017=dict(type='mmkd.Chen2017')),
)
