_base_ = ['mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py']
# What the memory learns is new, like the head.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(objectives=dict(lr_mult=10.0))))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmseg::segformer/segformer_mit-b4_8xb1-160k_cityscapes-1024x1024.py',
        checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/segformer/segformer_mit-b4_8x1_1024x1024_160k_cityscapes/'
        'segformer_mit-b4_8x1_1024x1024_160k_cityscapes_20211207_080709-07f6c333.pth',
    ),
    objectives=dict(
        skd_pixel=dict(type='mmkd.SKDPixel'),
        cirkd=dict(type='mmkd.CIRKD', pool=4),  # of 256 x 256 cells
        memory=dict(type='mmkd.CIRKDMemory', pixel_size=2000),
    ),
)
