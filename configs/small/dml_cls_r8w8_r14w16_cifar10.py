# A small and a large network teach each other.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    peers=dict(other='mmkd::small/cls_r14w16_cifar10.py'),
    objectives=dict(
        down=dict(type='mmkd.KD', teacher_name='other', tau=1),
        up=dict(type='mmkd.KD', learner='other', teacher_name='student', tau=1),
    ),
)
