# Teacher assistant for a detector: the released R101, then R50, then R18, by FGFI.
stages = dict(
    assistant=dict(config='mmkd::fgfi_frcnn_r101_r50.py'),
    student=dict(config='mmkd::fgfi_frcnn_r50_r18.py', teacher='assistant'),
)
