# AB as published: activation boundaries first, then KD without labels.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    boundaries=dict(config='mmkd::small/ab_init_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    student=dict(
        config='mmkd::small/kd_after_ab_init_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        student='boundaries',
    ),
)
