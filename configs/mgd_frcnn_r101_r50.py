_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
        checkpoint='released',
    ),
    objectives=dict(mgd=dict(type='mmkd.MGD')),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
