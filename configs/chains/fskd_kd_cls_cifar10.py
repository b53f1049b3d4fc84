# FSKD: a classifier pruned inside of its blocks, aligned on five images of each class, then tuned by KD.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    aligned=dict(make=dict(type='mmkd.FSKD', ratio=0.5, images=50), student='teacher'),
    student=dict(
        config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        student='aligned',
        options={'optim_wrapper.optimizer.lr': 0.01},
    ),
)
