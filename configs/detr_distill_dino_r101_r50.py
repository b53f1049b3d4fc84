_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::dino_r101.py',
        checkpoint='work_dirs/dino_r101',
    ),
    objectives=dict(matched=dict(type='mmkd.DETRDistill')),
)
