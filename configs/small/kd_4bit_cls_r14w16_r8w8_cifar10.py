# Quantised distillation (Polino et al.): four bits in buckets of 256, weights .7 and .3 of their code.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(kd=dict(type='mmkd.KD', tau=2, weight=0.7)),
    task_weight=0.3,
    edits=[dict(type='mmkd.FakeQuant', bits=4, form='asymmetric', axis='flat:256')],
)
