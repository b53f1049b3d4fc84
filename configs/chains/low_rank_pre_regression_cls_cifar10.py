# Dominant kernels: two kernels for each channel of a classifier, then pre-regression and KD from the whole one.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    low=dict(
        make=dict(type='mmkd.LowRank', rank=2, skip=['backbone.layer1'], most=0.8),
        student='teacher',
    ),
    student=dict(
        config='mmkd::small/pre_regression_kd_cls_r14w16_r14w16_cifar10.py',
        teacher='teacher',
        student='low',
        options={'optim_wrapper.optimizer.lr': 0.01},
    ),
)
