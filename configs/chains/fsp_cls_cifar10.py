# FSP as published: flow matrices without labels first, then the task alone.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    flow=dict(config='mmkd::small/fsp_init_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    student=dict(config='mmkd::small/cls_r8w8_cifar10.py', student='flow'),
)
