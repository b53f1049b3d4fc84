# RetinaNet on BCCD from scratch, for two CPU cores. Teacher and student configs set the widths.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'bccd.py']

strides = [8, 16, 32]

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(num_outs=3),
    bbox_head=dict(
        num_classes=3,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2.5, scales_per_octave=2, strides=strides),
    ),
)
