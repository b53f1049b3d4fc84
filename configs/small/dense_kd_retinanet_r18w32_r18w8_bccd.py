_base_ = ['retinanet_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/retinanet_r18w32_bccd.py', checkpoint='last'),
    objectives=dict(dense_kd=dict(type='mmkd.DenseKD')),
)
