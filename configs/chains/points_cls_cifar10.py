# Differentiable quantisation (Polino et al.): a float student, then the points of its weights.
points = 'mmkd::small/kd_points_cls_r14w16_r8w8_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    float=dict(config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    points=dict(config=points, teacher='teacher', student='float'),
)
