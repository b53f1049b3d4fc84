# InformationFlow: an auxiliary network of the student's depth and the teacher's width teaches.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    auxiliary=dict(
        config='mmkd::small/information_flow_auxiliary_cls_r14w16_r8w16_cifar10.py',
        teacher='teacher',
    ),
    student=dict(
        config='mmkd::small/information_flow_cls_r8w16_r8w8_cifar10.py', teacher='auxiliary'
    ),
)
