_base_ = ['mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::mask2former/mask2former_swin-s_8xb2-160k_ade20k-512x512.py',
        checkpoint='released',
    ),
    objectives=dict(masks=dict(type='mmkd.MatchedMasks')),
)
