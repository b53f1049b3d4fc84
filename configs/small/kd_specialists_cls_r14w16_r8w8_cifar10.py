# Hinton et al. 2015, section 5: a generalist, and specialists for animals and for vehicles with a dustbin each.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        **dict(type='mmkd.Ensemble', mean='specialists', tau=4.0, generalist='all'),
        members=dict(
            all=dict(config='mmkd::small/cls_r14w16_cifar10.py', checkpoint='last'),
            animals=dict(config='mmkd::small/cls_r14w16_animals_cifar10.py', checkpoint='last'),
            vehicles=dict(config='mmkd::small/cls_r14w16_vehicles_cifar10.py', checkpoint='last'),
        ),
        oversampling=dict(animals=2 / 3, vehicles=1.5),
    ),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
