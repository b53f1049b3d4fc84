# Dominant kernels: convolutions of a classifier by two kernels for each channel, then tuned by KD.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    low=dict(
        make=dict(type='mmkd.LowRank', rank=2, skip=['backbone.layer1'], most=0.8),
        student='teacher',
    ),
    student=dict(
        config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        student='low',
        options={'optim_wrapper.optimizer.lr': 0.01, 'model.objectives.kd.tau': 4},
    ),
)
