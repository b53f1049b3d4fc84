_base_ = ['_base_/synthetic_frcnn.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::demo_teacher.py',
        checkpoint='work_dirs/demo/teacher',
    ),
    objectives=dict(pkd=dict(type='mmkd.PKD')),
    balance=dict(type='mmkd.GradientRatio', ratio=0.3),
)
