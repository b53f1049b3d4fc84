# Quantization Mimic: a teacher tuned with a rounded pyramid, a student of it, deployed rounded.
rounded = dict(type='mmkd.QuantisedMap', at='neck')
stages = dict(
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py'),
    rounded=dict(make=rounded, teacher='teacher'),
    tuned=dict(config='mmkd::small/frcnn_r18w32_tune_bccd.py', student='rounded'),
    student=dict(config='mmkd::small/quant_mimic_frcnn_r18w32_r18w8_bccd.py', teacher='tuned'),
    own=dict(make=rounded, student='student'),
    deployed=dict(config='mmkd::small/frcnn_r18w8_tune_bccd.py', student='own'),
)
