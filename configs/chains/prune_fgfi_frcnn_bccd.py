# A detector pruned to half its multiply-accumulates, trained alone, and by FGFI from the whole one, then tuned.
stages = dict(
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py'),
    pruned=dict(make=dict(type='mmkd.Prune', macs=0.5), student='teacher'),
    alone=dict(config='mmkd::small/frcnn_r18w16_bccd.py', student='pruned'),
    distilled=dict(
        config='mmkd::small/fgfi_frcnn_r18w32_r18w16_bccd.py', teacher='teacher', student='pruned'
    ),
    tuned=dict(config='mmkd::small/frcnn_r18w8_tune_bccd.py', student='distilled'),
)
