# Pairs by mmkd make LayerPairs, which configs/chains/information_flow_pairs_cls_cifar10.py runs first.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_vgg8w16_cifar10.py', checkpoint='last'),
    objectives=dict(flow=dict(type='mmkd.InformationFlow', pairs=[(0, 0), (1, 1), (2, 2), (3, 4)])),
)
