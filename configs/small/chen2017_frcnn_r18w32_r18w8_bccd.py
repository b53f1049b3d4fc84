_base_ = ['frcnn_r18w8_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/frcnn_r18w32_bccd.py', checkpoint='last'),
    task_weight=dict(loss_cls=0.5, loss_rpn_cls=0.5),
    objectives=dict(chen2017=dict(type='mmkd.Chen2017')),
)
