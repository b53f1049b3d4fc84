_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::deformable_detr_r101.py',
        checkpoint='work_dirs/deformable_detr_r101',
    ),
    objectives=dict(matched=dict(type='mmkd.DETRDistill')),
)
