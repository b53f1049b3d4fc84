# Apprentice, last stage of scheme C: as B, for a trained student, at a hundredth of the learning rate.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(kd=dict(type='mmkd.KD', tau=1, weight=0.5)),
    task_weight=0.5,
    edits=[dict(type='mmkd.FakeQuant', bits=4, acts=8)],
)
train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(milestones=[6, 8, 9])
