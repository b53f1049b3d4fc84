# A critic of the last maps beside KD, as it must not be alone.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(
        feature_gan=dict(type='mmkd.FeatureGAN'),
        kd=dict(type='mmkd.KD', weight=0.9),
    ),
    task_weight=0.1,
)
