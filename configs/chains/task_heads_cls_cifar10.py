# DistInit (Girdhar et al., ICCV 2019): two teachers of other classes, features from both without labels, then the task.
_alone = dict(load_from=None)  # from random weights, not from a generalist's
stages = dict(
    animals=dict(config='mmkd::small/cls_r14w16_animals_cifar10.py', options=_alone),
    vehicles=dict(config='mmkd::small/cls_r14w16_vehicles_cifar10.py', options=_alone),
    init=dict(
        config='mmkd::small/task_heads_cls_r14w16_r8w8_cifar10.py',
        teacher=dict(animals='animals', vehicles='vehicles'),
    ),
    tune=dict(config='mmkd::small/cls_r8w8_cifar10.py', student='init'),
)
