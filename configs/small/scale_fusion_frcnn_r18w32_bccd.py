_base_ = ['frcnn_r18w32_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(scale_fusion=dict(type='mmkd.ScaleFusion')),
)
