# Mask R-CNN on synthetic scenes from scratch, for one CPU core. Teacher and student set the widths.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']

data_root = '{{$SCENES_ROOT:data/scenes/}}'
metainfo = dict(
    classes=('disc', 'square', 'triangle', 'star', 'ring'),
    palette=[(230, 84, 60), (66, 135, 245), (60, 180, 75), (250, 190, 40), (155, 80, 220)],
)
max_epochs = 20

model = dict(
    backbone=dict(
        depth=18, out_indices=(1, 2, 3), frozen_stages=-1, norm_eval=False, init_cfg=None
    ),
    neck=dict(num_outs=3),
    rpn_head=dict(anchor_generator=dict(scales=[3], strides=[8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=5), featmap_strides=[8, 16, 32], finest_scale=28
        ),
        bbox_head=dict(fc_out_channels=128, roi_feat_size=5, num_classes=5),
        mask_roi_extractor=dict(
            roi_layer=dict(output_size=10), featmap_strides=[8, 16, 32], finest_scale=28
        ),
        mask_head=dict(num_convs=2, num_classes=5),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=100),
        rcnn=dict(sampler=dict(num=32), mask_size=20),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=100), rcnn=dict(score_thr=0.05, max_per_img=30)
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(type='CocoDataset', data_root=data_root, metainfo=metainfo)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric=['bbox', 'segm']),
    dict(type='mmkd.BoundaryCocoMetric', ann_file=data_root + 'annotations/val.json'),
]
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    logger=dict(type='LoggerHook', interval=25),
)
