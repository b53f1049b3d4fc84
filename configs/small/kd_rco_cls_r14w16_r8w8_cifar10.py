# Route-constrained optimisation: four checkpoints of the teacher's own training, a quarter of the run each.
# Train the teacher with --cfg-options default_hooks.checkpoint.max_keep_ckpts=-1, which keeps all.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Anchors', config='mmkd::small/cls_r14w16_cifar10.py', anchors=4),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
