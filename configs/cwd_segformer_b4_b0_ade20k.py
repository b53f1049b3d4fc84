_base_ = ['mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b4_8xb2-160k_ade20k-512x512.py',
        checkpoint='released',
    ),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
