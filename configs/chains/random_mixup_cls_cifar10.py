# The comparison of active_mixup_cls_cifar10.py: the same number of queries, of mixtures at random.
_base_ = ['active_mixup_cls_cifar10.py']
stages = {f'ask{_i}': dict(make=dict(choose='random')) for _i in (1, 2, 3)}
