_base_ = ['mask2former_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/mask2former_r18w32_camvid.py',
        checkpoint='last',
    ),
    objectives=dict(masks=dict(type='mmkd.MatchedMasks')),
)
