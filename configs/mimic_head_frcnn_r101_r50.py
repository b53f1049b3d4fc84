# Second stage of two-stage mimic; configs/chains/mimic_frcnn_r101_r50.py trains both.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
        checkpoint='released',
    ),
    objectives=dict(mimic_head=dict(type='mmkd.MimicHead')),
)
