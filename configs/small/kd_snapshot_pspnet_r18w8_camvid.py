# Snapshot distillation of a segmentor: three cycles of four epochs.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Snapshot', cycles=3),
    objectives=dict(kd=dict(type='mmkd.KD', tau=3, student_tau=1, reduction='cross_entropy')),
    task_weight=1 + 1 / 3,
)
param_scheduler = [
    dict(
        type='CosineRestartLR',
        periods=[4, 4, 4],
        restart_weights=[1, 1, 1],
        eta_min=0,
        convert_to_iter_based=True,
    )
]
