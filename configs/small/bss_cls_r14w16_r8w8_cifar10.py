_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
    objectives=dict(
        bss=dict(
            type='mmkd.BSS',
            samples=32,  # of 128 images, as the 64 of 256 published
            alpha=dict(value=4.0, decay='linear', end_value=1.0),
            beta=dict(value=2.0, decay='linear', end_value=0.0, stop=0.75),
        )
    ),
)
