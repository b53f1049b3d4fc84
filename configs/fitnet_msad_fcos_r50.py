_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py']
half = [dict(type='mmkd.HalfScale')]
_base_.model.data_preprocessor.update(pad_size_divisor=256, batch_augments=half)
_base_.model.neck.start_level = 0
ranges = ((-1, 32), (32, 64), (64, 128), (128, 256), (256, 1e8))
_base_.model.bbox_head.update(strides=[4, 8, 16, 32, 64], regress_ranges=ranges)
_base_.test_pipeline[1].scale = (667, 400)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
fused = dict(type='mmkd.FusedTeacher', config='mmkd::scale_fusion_fcos_r50.py', checkpoint='last')
pyramid = dict(student='neck', resize=None, level_map='common', adapt='conv1x1', variant='l1')
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=fused,
    objectives=dict(msad=dict(type='mmkd.FitNet', weight=dict(value=1.0, warmup=500), **pyramid)),
)
