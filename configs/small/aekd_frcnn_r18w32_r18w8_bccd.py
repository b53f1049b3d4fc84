# Two teachers of different seeds, one for each loss, weighed by their gradients in the neck.
_base_ = ['frcnn_r18w8_bccd.py']

config = 'mmkd::small/frcnn_r18w32_bccd.py'

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher={
        s: dict(config=config, checkpoint=f'work_dirs/frcnn_r18w32_bccd_{s}') for s in ('s0', 's1')
    },
    objectives=dict(
        fgfi=dict(type='mmkd.FGFI', teacher_name='s0'), cwd=dict(type='mmkd.CWD', teacher_name='s1')
    ),
    balance=dict(type='mmkd.AEKD', over=['fgfi', 'cwd'], space='feature'),
)
