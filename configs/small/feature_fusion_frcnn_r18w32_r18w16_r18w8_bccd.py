_base_ = ['frcnn_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        wide=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
        narrow=dict(config='mmkd::small/frcnn_r18w16_bccd.py', checkpoint='last'),
    ),
    objectives=dict(fusion=dict(type='mmkd.FeatureFusion', teacher_name=['wide', 'narrow'])),
)
