# The backbone of cls_r18w8_cifar10.py, from the similarities that a ViT sees in mixed images without labels.
_base_ = ['cls_r18w8_cifar10.py']

images = dict(type='mmkd.Unlabelled', dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=dict(_delete_=True, **images))
val_dataloader = val_evaluator = val_cfg = None  # no class is learnt
_base_.model.data_preprocessor.mixup = 1.0
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_vit_cifar10.py', checkpoint='last'),
    objectives=dict(tokens=dict(type='mmkd.TokenDistillation', form='global_local', queue=2560)),
    task_weight=None,
)
