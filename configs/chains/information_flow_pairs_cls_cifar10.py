# InformationFlow without an auxiliary network: the nearest layers of a teacher of another depth.
config = 'mmkd::small/information_flow_pairs_cls_vgg8_r8w8_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_vgg8w16_cifar10.py'),
    plain=dict(config='mmkd::small/cls_r8w8_cifar10.py'),
    search=dict(
        make=dict(type='mmkd.LayerPairs', config=config), teacher='teacher', student='plain'
    ),
    student=dict(config=config, teacher='teacher', files={'model.objectives.flow.pairs': 'search'}),
)
