# ESKD with both of the paper's remedies: a teacher that stopped early, and KD that stops early.
stages = dict(
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        options={'default_hooks.checkpoint.max_keep_ckpts': -1},
    ),
    student=dict(config='mmkd::small/eskd_cls_r14w16_r8w8_cifar10.py', teacher='teacher:epoch_20'),
)
