_base_ = ['maskrcnn_r18w8_scenes.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/maskrcnn_r18w32_scenes.py',
        checkpoint='last',
    ),
    objectives=dict(mask=dict(type='mmkd.MaskKD')),
)
