# Net2Net: a trained classifier grows to twice its width and two more layers, and trains on from there.
grow = dict(type='mmkd.Net2Net', widen=2, deepen=['backbone.layer2', 'backbone.layer3'], noise=0.01)
stages = dict(
    small=dict(config='mmkd::small/cls_r8w8_cifar10.py'),
    grown=dict(make=grow, student='small'),
    large=dict(
        config='mmkd::small/cls_r8w8_cifar10.py',
        student='grown',
        options={'optim_wrapper.optimizer.lr': 0.01},
    ),
)
