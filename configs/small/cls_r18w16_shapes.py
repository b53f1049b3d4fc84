# One object an image: the backbone of ../_base_/scenes_mil.py, which says how the data are written.
_base_ = ['../_base_/cifar10_48.py']

data_root = 'work_dirs/few/shapes/'
model = dict(
    num_classes=5,
    backbone=dict(
        base_channels=16, num_stages=3, strides=(1, 2, 1), dilations=(1, 1, 2), out_indices=(2,)
    ),
)
train_dataloader = dict(batch_size=64, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=20)
param_scheduler = dict(milestones=[12, 16, 18])
