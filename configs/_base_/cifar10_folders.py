# A part of CIFAR-10 in class folders, for one CPU core: images of 16 x 16 pixels, 30 epochs.
default_scope = 'mmengine'
data_root = '{{$CIFAR10_ROOT:data/cifar10/}}'

model = dict(
    type='mmkd.Classifier',
    data_preprocessor=dict(
        type='mmkd.ClassificationDataPreprocessor',
        mean=[125.307, 122.961, 113.8575],
        std=[62.985, 62.0925, 66.708],
        bgr_to_rgb=True,
    ),
    num_classes=10,
)

train_pipeline = [
    dict(type='mmkd.LoadImageOnce'),
    dict(type='Resize', scale=(16, 16), interpolation='area'),
    dict(type='mmkd.RandomCrop', size=16, padding=2),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmkd.PackClassInputs'),
]
test_pipeline = [
    dict(type='mmkd.LoadImageOnce'),
    dict(type='Resize', scale=(16, 16), interpolation='area'),
    dict(type='mmkd.PackClassInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmkd.ClassFolders',
        data_root=data_root,
        data_prefix=dict(img_path='train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmkd.ClassFolders',
        data_root=data_root,
        data_prefix=dict(img_path='val'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmkd.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(type='MultiStepLR', milestones=[19, 23, 26], gamma=0.1)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=39),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
)
