# CIRKD reports CWD below the plain student here (74.8 against 75.6 mIoU): see skd_pixel.
_base_ = ['mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b4_8xb1-160k_cityscapes-1024x1024.py',
        checkpoint='released',
    ),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
