# In configs/chains/quant_mimic_frcnn_bccd.py the teacher's own maps are rounded, too.
_base_ = ['frcnn_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
    objectives=dict(quant_mimic=dict(type='mmkd.QuantMimic')),
)
