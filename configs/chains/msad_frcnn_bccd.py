# MSAD: a teacher that learns from two sizes of an image, then a student on the smaller one.
stages = dict(
    teacher=dict(config='mmkd::small/scale_fusion_frcnn_r18w32_bccd.py'),
    student=dict(config='mmkd::small/fitnet_msad_frcnn_r18w32_r18w8_bccd.py', teacher='teacher'),
)
