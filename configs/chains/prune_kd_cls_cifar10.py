# Half the multiply-accumulates of a classifier pruned, then trained alone, and by KD from the whole one.
rate = {'optim_wrapper.optimizer.lr': 0.01}
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    pruned=dict(make=dict(type='mmkd.Prune', macs=0.5), student='teacher'),
    alone=dict(config='mmkd::small/cls_r8w8_cifar10.py', student='pruned', options=rate),
    student=dict(
        config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        student='pruned',
        options=rate,
    ),
)
