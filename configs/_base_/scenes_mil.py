# A weakly supervised detector on synthetic scenes, for two CPU cores. First data, and the backbone, which learns
# from one object an image, as ImageNet's do:
# python -m mmkd.datasets.synthetic coco work_dirs/few/data --train 200 --val 100 --size 96 72 --objects 1 2 --scale 0.4 0.6
# python -m mmkd.datasets.synthetic folders work_dirs/few/shapes --train 4000 --val 250 --size 64 64
# mmkd train configs/small/cls_r18w16_shapes.py --work-dir work_dirs/few/backbone
# Validation measures CorLoc on the training images, a test COCO's AP on others.
_base_ = ['mmdet::_base_/default_runtime.py']

data_root = 'work_dirs/few/data/'
backbone = 'work_dirs/few/backbone/epoch_20.pth'
metainfo = dict(classes=('disc', 'square', 'triangle', 'star', 'ring'))
max_epochs = 12

model = dict(
    type='mmkd.WeakDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        out_indices=(2,),
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=backbone, prefix='backbone.'),
    ),
    roi_head=dict(
        type='mmkd.MILRoIHead',
        num_classes=5,
        in_channels=64,
        stride=8,
        width=128,
        roi_size=4,
        refinements=0,
    ),
)

proposals = dict(type='mmkd.GridProposals', scales=(0.36, 0.46), ratios=(1.0,), step=0.33)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    proposals,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmkd.ProposalsToImage'),
    dict(type='mmkd.ImageLabels'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    proposals,
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='mmkd.ProposalsToImage'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(type='CocoDataset', data_root=data_root, metainfo=metainfo)
training = dict(**dataset, ann_file='annotations/train.json', data_prefix=dict(img='train/'))
loader = dict(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**training, pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader, batch_size=8, dataset=dict(**training, test_mode=True, pipeline=test_pipeline)
)
test_dataloader = dict(
    **loader,
    batch_size=8,
    dataset=dict(
        **dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmkd.CorLoc')
test_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=25),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1), logger=dict(type='LoggerHook', interval=25))
