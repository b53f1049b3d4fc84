# Data-free adversarial distillation: 10 epochs of 1,200 steps, of which five of six are the student's.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(dfad=dict(type='mmkd.DFAD', size=16, width=32)),
    task_weight=None,
    trains=dict(student=dict(every=6, count=5), objectives=dict(every=6, first=5)),
)
images = dict(_delete_=True, type='mmkd.NoImages', length=128 * 1200)
train_dataloader = dict(dataset=images)
train_cfg = dict(max_epochs=10, val_interval=1)
param_scheduler = dict(milestones=[4, 8])
