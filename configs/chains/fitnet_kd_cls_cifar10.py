# FitNet as published: the student's first half learns the hint, then all of it learns by KD.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    hint=dict(config='mmkd::small/fitnet_hint_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    student=dict(
        config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py', teacher='teacher', student='hint'
    ),
)
