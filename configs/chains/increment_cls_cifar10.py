# New classes for a classifier: it learns eight, then ten, with KD from the first on the eight.
stages = dict(
    old=dict(config='mmkd::small/cls_r8w8_old_cifar10.py'),
    new=dict(
        config='mmkd::small/kd_increment_cls_r8w8_r8w8_cifar10.py',
        teacher='old',
        files=dict(load_from='old'),
    ),
)
