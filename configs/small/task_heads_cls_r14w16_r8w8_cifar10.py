# DistInit: the student's features from teachers of animals and of vehicles, on the same images without labels.
_base_ = ['cls_r8w8_cifar10.py']

images = dict(type='mmkd.Unlabelled', dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=dict(_delete_=True, **images))
val_dataloader = val_evaluator = val_cfg = None  # no class is learnt
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        animals=dict(config='mmkd::small/cls_r14w16_animals_cifar10.py', checkpoint='last'),
        vehicles=dict(config='mmkd::small/cls_r14w16_vehicles_cifar10.py', checkpoint='last'),
    ),
    objectives=dict(task_heads=dict(type='mmkd.TaskHeads', teacher_name=['animals', 'vehicles'])),
    task_weight=None,
)
