_base_ = ['frcnn_r18w8_bccd.py']
# The student trains and is scored on images of half the size; its teacher sees the full ones.
_base_.model.data_preprocessor.batch_augments = [dict(type='mmkd.HalfScale')]
_base_.test_pipeline[1].scale = (128, 96)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
    objectives=dict(fgfi=dict(type='mmkd.FGFI', level_map='common')),
)
