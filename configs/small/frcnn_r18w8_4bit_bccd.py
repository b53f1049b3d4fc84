# The student of the BCCD protocol with weights of four bits, without a teacher.
_base_ = ['frcnn_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Edited',
    model=_base_.model,
    edits=[dict(type='mmkd.FakeQuant', bits=4)],
)
