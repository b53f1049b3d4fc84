# The protocol of the distillation literature for CIFAR-100: 240 epochs, batch 64, one GPU.
default_scope = 'mmengine'
data_root = '{{$CIFAR100_ROOT:data/}}'

model = dict(
    type='mmkd.Classifier',
    data_preprocessor=dict(
        type='mmkd.ClassificationDataPreprocessor',
        mean=[129.3105, 124.1085, 112.404],
        std=[68.2125, 65.4075, 70.4055],
        bgr_to_rgb=True,
    ),
    num_classes=100,
)

train_pipeline = [
    dict(type='mmkd.RandomCrop', size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmkd.PackClassInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmkd.Cifar100', data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmkd.Cifar100',
        data_root=data_root,
        train=False,
        test_mode=True,
        pipeline=[dict(type='mmkd.PackClassInputs')],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmkd.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=240, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=100),
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=1),
)
