# CIFAR-10: KD, and KD with a second method, with its published weight and balanced. The task has the
# weight 0.1 beside KD, so 3 times its gradient is three tenths of that of plain training.
kd = 'mmkd::small/kd_cls_r14w16_r8w8_cifar10.py'
methods = {'kd': kd}
for second in ('AT', 'SP', 'RKD', 'FitNet', 'PKT', 'VID', 'NST', 'IRG', 'CCKD'):
    key = second.lower()
    second = {f'model.objectives.{key}': dict(type=f'mmkd.{second}')}
    methods[f'kd+{key}'] = dict(config=kd, options=second)
    methods[f'kd+{key} balanced'] = dict(config=kd, options=second | {f'model.balance.{key}': 3})
teacher = 'mmkd::small/cls_r14w16_cifar10.py'
seeds = [0, 1]
