_base_ = ['_base_/synthetic_frcnn.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::demo_teacher.py',
        checkpoint='work_dirs/demo/teacher',
    ),
    objectives=dict(fgfi=dict(type='mmkd.FGFI', weight=0.02)),
)
