# Moonshine for a detector: the teacher's own architecture, with a backbone of cheap convolutions.
_base_ = ['frcnn_r18w32_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
    objectives=dict(fgfi=dict(type='mmkd.FGFI')),
    edits=[dict(type='mmkd.CheapConvs', bottleneck=2, groups=4)],
)
