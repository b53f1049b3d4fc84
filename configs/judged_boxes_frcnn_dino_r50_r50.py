_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', checkpoint='released'),
    objectives=dict(judged=dict(type='mmkd.JudgedBoxes')),
)
