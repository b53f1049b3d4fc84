# Zero-shot knowledge transfer: 100 batches of noise in each of 10 epochs, of each one step of the generator and ten of the student.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(
        zskt=dict(type='mmkd.ZSKT', size=16, width=32), at=dict(type='mmkd.AT', weight=250)
    ),
    task_weight=None,
    trains=dict(objectives=dict(every=11), student=dict(every=11, first=1, count=10)),
)
train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd.NoImages', length=128 * 1100))
train_cfg = dict(max_epochs=10, val_interval=1)
adam = dict(_delete_=True, type='Adam', lr=2e-3)
optim_wrapper = dict(optimizer=adam, clip_grad=dict(max_norm=5))
cosine = dict(type='CosineAnnealingLR', T_max=10, convert_to_iter_based=True)
param_scheduler = dict(_delete_=True, **cosine)
