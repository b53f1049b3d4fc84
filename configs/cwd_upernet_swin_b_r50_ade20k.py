_base_ = ['mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::swin/swin-base-patch4-window7-in22k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        checkpoint='released',
    ),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
