_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', checkpoint='released'),
    objectives=dict(pkd=dict(type='mmkd.PKD')),
)
