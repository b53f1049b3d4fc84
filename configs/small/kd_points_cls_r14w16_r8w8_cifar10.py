# Differentiable quantisation (Polino et al.): the points of a trained student's weights are learned.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(kd=dict(type='mmkd.KD', tau=2, weight=0.7)),
    task_weight=0.3,
    edits=[dict(type='mmkd.FakeQuant', bits=4, form='points', axis='flat:256')],
)
train_cfg = dict(max_epochs=10)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys={'edits.': dict(decay_mult=0)})
)
param_scheduler = dict(milestones=[6, 8, 9])
