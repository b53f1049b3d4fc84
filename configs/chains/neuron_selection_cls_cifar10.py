# Neuron selection (Luo et al., AAAI 2016): the student's embedding learns the 32 neurons of the teacher that are worth it.
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    neurons=dict(make=dict(type='mmkd.Neurons', count=32), teacher='teacher'),
    student=dict(
        config='mmkd::small/fitnet_neurons_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        files={'model.objectives.fitnet.teacher': 'neurons'},
    ),
)
