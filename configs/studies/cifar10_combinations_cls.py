# CIFAR-10: KD alone, and KD with a second method whose gradient is kept at a share of the task's.
kd = 'mmkd::small/kd_cls_r14w16_r8w8_cifar10.py'
methods = {'kd': kd}
for second in ('AT', 'SP', 'RKD', 'FitNet', 'PKT', 'VID', 'NST', 'IRG', 'CCKD'):
    key = second.lower()
    options = {f'model.objectives.{key}': dict(type=f'mmkd.{second}')}
    methods[f'kd + {key}'] = dict(config=kd, options=options)
    methods[f'kd + {key}, balance'] = dict(
        config=kd, options=options | {f'model.balance.{key}': 0.3}
    )
teacher = 'mmkd::small/cls_r14w16_cifar10.py'
seeds = [0, 1]
