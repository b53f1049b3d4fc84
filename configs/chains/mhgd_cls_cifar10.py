# MHGD: attention heads learn on the teacher, then the student learns their graphs.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    heads=dict(config='mmkd::small/mhgd_attention_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    student=dict(
        config='mmkd::small/mhgd_cls_r14w16_r8w8_cifar10.py', teacher='teacher', objectives='heads'
    ),
)
