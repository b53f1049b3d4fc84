_base_ = ['mmdet::detr/detr_r50_8xb2-150e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(layer_self=dict(type='mmkd.LayerSelf')),
)
