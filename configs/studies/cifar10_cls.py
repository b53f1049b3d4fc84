# CIFAR-10: ten methods and two combinations, with their defaults and with balance.
names = ('kd', 'dkd', 'prdkd', 'dist', 'at', 'rkd', 'sp', 'crd', 'reviewkd', 'ofd')
methods = {name: f'mmkd::small/{name}_cls_r14w16_r8w8_cifar10.py' for name in names}
for second in ('DKD', 'PRDKD'):
    methods[f'reviewkd+{second.lower()}'] = dict(
        config=methods['reviewkd'],
        options={f'model.objectives.{second.lower()}': dict(type=f'mmkd.{second}')},
    )
teacher = 'mmkd::small/cls_r14w16_cifar10.py'
student = 'mmkd::small/cls_r8w8_cifar10.py'
grid = {'model.balance': [None, 0.3]}
seeds = [0, 1]
