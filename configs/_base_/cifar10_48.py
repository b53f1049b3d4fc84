# The same images enlarged to 48 x 48 for backbones of detectors, with their pixels' mean and std; 10 epochs.
_base_ = ['cifar10_folders.py']

_base_.train_pipeline[1].update(scale=(48, 48), interpolation='bilinear')
_base_.train_pipeline[2].update(size=48, padding=6)
_base_.test_pipeline[1].update(scale=(48, 48), interpolation='bilinear')
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='mmdet.ResNet', depth=18, norm_eval=False),
)
train_cfg = dict(max_epochs=10, val_interval=5)
param_scheduler = dict(milestones=[6, 8, 9])
