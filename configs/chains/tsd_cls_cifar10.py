# TSD: the teacher learns to tolerate its second classes, then it teaches.
stages = dict(
    teacher=dict(config='mmkd::small/tsd_cls_r14w16_cifar10.py'),
    student=dict(config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
)
