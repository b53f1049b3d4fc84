# Data-free learning: 10 epochs of 240 steps, student and generator in each, on batches of 512 images.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(dafl=dict(type='mmkd.DAFL', size=16, width=32)),
    task_weight=None,
)
images = dict(_delete_=True, type='mmkd.NoImages', length=512 * 240)
train_dataloader = dict(batch_size=512, dataset=images)
train_cfg = dict(max_epochs=10, val_interval=1)
param_scheduler = dict(milestones=[4, 8])
