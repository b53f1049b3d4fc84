# Two segmentors teach each other.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    peers=dict(other=_base_.model),
    objectives=dict(
        down=dict(type='mmkd.KD', teacher_name='other', tau=1),
        up=dict(type='mmkd.KD', learner='other', teacher_name='student', tau=1),
    ),
)
