# Teacher assistant for a detector: ResNet-18 of widths 32, 16 and 8, by FGFI.
stages = dict(
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py'),
    assistant=dict(config='mmkd::small/fgfi_frcnn_r18w32_r18w16_bccd.py', teacher='teacher'),
    student=dict(config='mmkd::small/fgfi_frcnn_r18w16_r18w8_bccd.py', teacher='assistant'),
)
