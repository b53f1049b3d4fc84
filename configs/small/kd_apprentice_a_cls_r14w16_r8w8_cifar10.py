# Apprentice, scheme A: teacher and student of 4-bit weights and 8-bit activations learn together.
_base_ = ['cls_r8w8_cifar10.py']

teacher = dict(_base_.model, backbone=dict(type='mmkd.CifarResNet', depth=14, base_channels=16))
bits = dict(type='mmkd.FakeQuant', bits=4, acts=8)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=dict(type='mmkd.Edited', model=_base_.model, edits=[bits]),
    peers=dict(teacher=teacher),
    objectives=dict(kd=dict(type='mmkd.KD', teacher_name='teacher', tau=1, weight=0.5)),
    task_weight=0.5,
)
