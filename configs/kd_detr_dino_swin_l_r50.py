_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::dino/dino-5scale_swin-l_8xb2-36e_coco.py',
        checkpoint='released',
    ),
    objectives=dict(
        points=dict(type='mmkd.KDDETR'),
        neck=dict(type='mmkd.PKD', level_map='common'),
    ),
)
