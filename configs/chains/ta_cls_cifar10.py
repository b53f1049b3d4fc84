# Teacher assistant (Mirzadeh et al., AAAI 2020): the student learns from a network of intermediate size.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    assistant=dict(config='mmkd::small/kd_cls_r14w16_r8w16_cifar10.py', teacher='teacher'),
    student=dict(config='mmkd::small/kd_cls_r8w16_r8w8_cifar10.py', teacher='assistant'),
)
