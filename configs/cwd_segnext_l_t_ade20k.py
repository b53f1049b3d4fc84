_base_ = ['mmseg::segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segnext/segnext_mscan-l_1xb16-adamw-160k_ade20k-512x512.py',
        checkpoint='released',
    ),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
