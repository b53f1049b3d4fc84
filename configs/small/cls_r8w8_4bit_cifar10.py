# The student of the CIFAR-10 protocol with weights of four bits, without a teacher.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Edited',
    model=_base_.model,
    edits=[dict(type='mmkd.FakeQuant', bits=4)],
)
