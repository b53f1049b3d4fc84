# Needs transformers, and work_dirs/dinov3_vitb16 as `hf download facebook/dinov3-vitb16-pretrain-lvd1689m` fetches it.
_base_ = ['cls_r18_imagenet.py']

images = dict(type='mmkd.Unlabelled', dataset=_base_.train_dataloader.dataset)
train_dataloader = dict(dataset=dict(_delete_=True, **images))
val_dataloader = val_evaluator = val_cfg = None  # no class is learnt
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        type='mmkd.VisionModel', model='transformers/work_dirs/dinov3_vitb16', dtype='bf16'
    ),
    objectives=dict(tokens=dict(type='mmkd.TokenDistillation', normalise='batch')),
    task_weight=None,
)
