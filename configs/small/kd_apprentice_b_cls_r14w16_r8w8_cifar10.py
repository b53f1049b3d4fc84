# Apprentice, scheme B: 4-bit weights and 8-bit activations from the start, a trained teacher.
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
