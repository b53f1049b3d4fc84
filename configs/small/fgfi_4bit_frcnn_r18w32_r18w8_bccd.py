# A student with weights of four bits; first and last layers have eight.
_base_ = ['frcnn_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
    objectives=dict(fgfi=dict(type='mmkd.FGFI')),
    edits=[dict(type='mmkd.FakeQuant', bits=4)],
)
