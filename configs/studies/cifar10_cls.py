# CIFAR-10: nine methods, with their defaults and with balance.
names = ('kd', 'dkd', 'dist', 'at', 'rkd', 'sp', 'crd', 'reviewkd', 'ofd')
methods = {name: f'mmkd::small/{name}_cls_r14w16_r8w8_cifar10.py' for name in names}
teacher = 'mmkd::small/cls_r14w16_cifar10.py'
student = 'mmkd::small/cls_r8w8_cifar10.py'
grid = {'model.balance': [None, 0.3]}
seeds = [0, 1]
