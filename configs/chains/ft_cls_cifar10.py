# FT: the paraphraser learns on the teacher, then the student learns its factors.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    words=dict(config='mmkd::small/ft_paraphraser_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    student=dict(
        config='mmkd::small/ft_cls_r14w16_r8w8_cifar10.py', teacher='teacher', objectives='words'
    ),
)
