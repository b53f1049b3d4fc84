"""SimKD: the mean squared error, and whose linear layer judges."""

import pytest
import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.levels import Level
from mmkd.methods.simkd import SimKD
from mmkd.models import BottleneckProjector
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, make_trace, ready, tiny_classifier

PROJECTOR = dict(
    type='mmkd.BottleneckProjector', out_channels=32
)  # the ResNet-8 of width 8 ends in 32


def build(weight=1.0, task_weight=0, **student):
    torch.manual_seed(0)
    teacher = build_model(tiny_classifier(8))
    nn.init.normal_(teacher.head.fc.weight)
    return Distiller(
        build_model(tiny_classifier(4, **{'projector': PROJECTOR, **student})),
        dict(simkd=SimKD(weight=weight)),
        Teacher(teacher, 'random'),
        task_weight=task_weight,
    )


def test_worked_numbers():
    i = torch.arange(16.0)
    s, t = ((i - 7) / 4).view(2, 2, 2, 2), ((5 * i) % 9 - 4).view(2, 2, 2, 2) / 4
    objective = SimKD('a')
    trace = make_trace({'a': s}, {'a': t})
    ready(objective, trace)
    assert float(objective(trace)['loss']) == pytest.approx(1.5625)
    coarse = make_trace({'a': s}, {'a': torch.ones(2, 2, 1, 1)})
    wanted = (s.mean((2, 3)) - 1).square().mean()
    torch.testing.assert_close(objective(coarse)['loss'], wanted)


def test_the_student_judges_as_the_teacher_does():
    """Equal maps give equal logits: the linear layer is the teacher's, and nothing trains it."""
    distiller = build()
    teacher = distiller.teachers['teacher'].model
    maps = torch.randn(2, 32, 3, 3)
    own, wanted = (model.head(model.pool(maps)) for model in (distiller.student, teacher))
    assert torch.equal(own, wanted) and not wanted.requires_grad
    distiller.train().loss(*classification_batch())['kd.simkd.loss'].backward()
    grads = {name: p.grad for name, p in distiller.named_parameters()}
    assert grads['head.fc.weight'] is None and grads['head.fc.bias'] is None
    assert grads['backbone.conv1.weight'].any() and grads['projector.layers.0.weight'].any()


def test_the_layer_is_borrowed_again_when_training_begins():
    distiller = build()
    distiller.init_weights()
    teacher = distiller.teachers['teacher'].model
    assert not torch.equal(distiller.head.fc.weight, teacher.head.fc.weight)
    distiller.objectives['simkd'].inherit(distiller.student, teacher)
    assert torch.equal(distiller.head.fc.weight, teacher.head.fc.weight)


def test_at_weight_zero_the_student_is_a_plain_one():
    distiller = build(weight=0, task_weight=1)
    torch.manual_seed(0)
    build_model(tiny_classifier(8))
    assert all(p.requires_grad for p in distiller.student.parameters())
    teacher = distiller.teachers['teacher'].model
    assert not torch.equal(distiller.head.fc.weight, teacher.head.fc.weight)


def test_the_projector_is_a_bottleneck():
    layers = BottleneckProjector(6, 8, factor=4).layers
    shapes = [tuple(m.weight.shape) for m in layers if isinstance(m, nn.Conv2d)]
    assert shapes == [(2, 6, 1, 1), (2, 2, 3, 3), (8, 2, 1, 1)]
    assert (layers(torch.randn(2, 6, 4, 5)) >= 0).all()
    with pytest.raises(ValueError, match='factor must be a whole number from 1 to 8, found 9'):
        BottleneckProjector(6, 8, factor=9)


def test_what_is_refused():
    with pytest.raises(ValueError, match="takes 16 channels, the teacher's 32.*out_channels=32"):
        build(projector=None)
    with pytest.raises(ValueError, match='have 5 and 3 classes'):
        build(num_classes=5)
    objective = SimKD(['a', 'b'], ['a', 'b'])
    maps = {'a': torch.randn(2, 4, 3, 3), 'b': torch.randn(2, 4, 3, 3)}
    with pytest.raises(ValueError, match='one map of each network'):
        ready(objective, make_trace(maps, maps))
    with pytest.raises(ValueError, match='have 4 and 6 channels'):
        ready(SimKD('a'), make_trace({'a': maps['a']}, {'a': torch.randn(2, 6, 3, 3)}))


def test_the_larger_map_is_averaged_in_front_of_the_projector():
    """At training and at inference, so the student says how much."""
    torch.manual_seed(0)
    model = BottleneckProjector(4, 8, pool=2).eval()
    plain = BottleneckProjector(4, 8).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.rand(2, 4, 8, 6)
    wanted = plain(torch.nn.functional.avg_pool2d(x, 2))
    assert torch.equal(model(x), wanted) and not torch.equal(
        wanted.mean((2, 3)), plain(x).mean((2, 3))
    )
    assert model(torch.rand(2, 4, 1, 1)).shape == (2, 8, 1, 1)
    objective = SimKD('a')
    objective.projected = True
    with pytest.raises(ValueError, match=r'stride 4 and the teacher.s 8.*pool=2'):
        objective.setup([Level((8, 8, 8), 4, 'a')], [Level((8, 4, 4), 8, 'a')])
    with pytest.raises(ValueError, match='pool must be'):
        BottleneckProjector(4, 8, pool=0)
