_base_ = ['mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py']
# What the memory learns is new, like the head.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(objectives=dict(lr_mult=10.0))))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b4_8xb1-160k_cityscapes-1024x1024.py',
        checkpoint='released',
    ),
    objectives=dict(
        skd_pixel=dict(type='mmkd.SKDPixel'),
        cirkd=dict(type='mmkd.CIRKD', pool=4),  # of 256 x 256 cells
        memory=dict(type='mmkd.CIRKDMemory', pixel_size=2000),
    ),
)
