_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        checkpoint='released',
    ),
    objectives=dict(matched=dict(type='mmkd.MatchedDetections')),
)
