_base_ = ['pspnet_r18w8_camvid.py']
# The student trains and is scored on images of half the size; its teacher sees the full ones.
_base_.model.data_preprocessor.batch_augments = [dict(type='mmkd.HalfScale')]
_base_.test_pipeline[1].scale = (120, 90)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/pspnet_r18w32_camvid.py',
        checkpoint='last',
    ),
    objectives=dict(cwd=dict(type='mmkd.CWD', resize='student')),
)
