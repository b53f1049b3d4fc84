# All routes; tools/search_routes.py says which to keep, e.g. routes=[(2, 2)].
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(
        guidance=dict(type='mmkd.GuidanceRoute', weight=dict(decay='linear')),
    ),
)
