_base_ = ['deformable_detr_r18w8_scenes.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/deformable_detr_r18w24_scenes.py', checkpoint='last'),
    objectives=dict(points=dict(type='mmkd.KDDETR', points=40)),
)
