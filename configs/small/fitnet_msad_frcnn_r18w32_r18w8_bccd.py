_base_ = ['frcnn_r18w8_bccd.py']
# MSAD: the student sees half the size; the teacher both, fused by the gate that it was trained with.
_base_.model.data_preprocessor.batch_augments = [dict(type='mmkd.HalfScale')]
_base_.test_pipeline[1].scale = (128, 96)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
pyramid = dict(student='neck', resize=None, level_map='common', adapt='conv1x1', variant='l1')
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        type='mmkd.FusedTeacher',
        config='mmkd::small/scale_fusion_frcnn_r18w32_bccd.py',
        checkpoint='last',
    ),
    objectives=dict(msad=dict(type='mmkd.FitNet', weight=dict(value=1.0, warmup=50), **pyramid)),
)
