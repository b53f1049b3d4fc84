# The teacher's probabilities on images that were made of it alone (`mmkd make Inversion`): ../chains/inversion_cls_cifar10.py
_base_ = ['cls_r8w8_cifar10.py']

images = dict(type='mmkd.ImageFolder', manifest='work_dirs/Inversion/manifest.json')
images.update(pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd.Unlabelled', dataset=images))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(kd=dict(type='mmkd.KD')),
    task_weight=None,
)
train_cfg = dict(max_epochs=150, val_interval=50)
param_scheduler = dict(milestones=[95, 115, 130])
