_base_ = ['mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b4_8xb1-160k_cityscapes-1024x1024.py',
        checkpoint='released',
    ),
    objectives=dict(skd_pixel=dict(type='mmkd.SKDPixel')),
)
