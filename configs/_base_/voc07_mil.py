# Image labels of Pascal VOC 2007 with the schedule of WSOD2's code; proposals are written before by
# python -m mmkd.datasets.selective_search data/VOCdevkit/VOC2007/JPEGImages --out data/VOCdevkit/proposals.pkl
# Validation measures CorLoc on the training images, a test AP on VOC's test images.
_base_ = ['mmdet::_base_/default_runtime.py']

data_root = 'data/VOCdevkit/'
max_epochs = 64

model = dict(
    type='mmkd.WeakDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    roi_head=dict(
        type='mmkd.MILRoIHead', num_classes=20, in_channels=1024, width=1024, refinements=3
    ),
)

load_proposals = dict(type='mmkd.LoadProposals', file=data_root + 'proposals.pkl')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_proposals,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(2000, side) for side in (488, 576, 688, 864, 1200)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmkd.ProposalsToImage'),
    dict(type='mmkd.ImageLabels'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    load_proposals,
    dict(type='Resize', scale=(2000, 688), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='mmkd.ProposalsToImage'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(type='VOCDataset', data_root=data_root, data_prefix=dict(sub_data_root='VOC2007/'))
loader = dict(num_workers=2, persistent_workers=True, batch_size=1)
train_dataloader = dict(
    **loader,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset, ann_file='VOC2007/ImageSets/Main/trainval.txt', pipeline=train_pipeline
    ),
)
in_order = dict(type='DefaultSampler', shuffle=False)
val_dataloader = dict(
    **loader,
    sampler=in_order,
    dataset=dict(
        **dataset,
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    **loader,
    sampler=in_order,
    dataset=dict(
        **dataset,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmkd.CorLoc')
test_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=8)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-5, weight_decay=5e-4),
    paramwise_cfg=dict(
        bias_lr_mult=2.0,
        bias_decay_mult=0.0,
        custom_keys={'bbox_head.refine': dict(lr_mult=10.0)},
    ),
    clip_grad=dict(max_norm=35.0),
)
param_scheduler = [dict(type='MultiStepLR', milestones=[36], end=max_epochs, gamma=0.1)]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
