# The backbone of cls_r18w8_cifar10.py, from the features of a ViT on the same images without labels.
_base_ = ['cls_r18w8_cifar10.py']

images = dict(type='mmkd.Unlabelled', dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=dict(_delete_=True, **images))
val_dataloader = val_evaluator = val_cfg = None  # no class is learnt
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_vit_cifar10.py', checkpoint='last'),
    objectives=dict(tokens=dict(type='mmkd.TokenDistillation', normalise='batch')),
    task_weight=None,
)
