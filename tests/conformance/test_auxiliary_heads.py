"""A segmentor's decode head teaches its auxiliary heads, by a config alone."""

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.functional.logit_distances import pixel_wise_kl
from mmkd.registry import MODELS
from mmkd.tap import TapError
from mmkd.teacher import build_model
from mmkd.testing import make_trace, ready, segmentation_batch, tiny_pspnet

AUXILIARY, DECODE = 'auxiliary_head.conv_seg', 'decode_head.conv_seg'
METHODS = ('CWD', 'SKDPixel', 'KD')


def segmentor(**changes):
    torch.manual_seed(0)
    return build_model(tiny_pspnet(4, auxiliary=True, **changes))


def distiller(name, student=None, auxiliary=AUXILIARY, **options):
    entry = dict(type=f'mmkd.{name}', student=auxiliary, teacher=DECODE, teacher_name='student')
    student = segmentor() if student is None else student
    return Distiller(student, dict(it=entry | options), preflight=False)


def step(model):
    torch.manual_seed(0)
    return model.loss(*segmentation_batch(2, (64, 96)))


def test_worked_numbers():
    own = torch.tensor([[0.6, 0.4], [0.5, 0.5]], dtype=torch.float64).log()
    deep = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
    pixels = [x.T.reshape(1, 2, 1, 2) for x in (own, deep)]
    assert float(pixel_wise_kl(*pixels)) == pytest.approx(0.209517, abs=1e-6)


@pytest.mark.parametrize('name', METHODS)
def test_it_is_the_method_between_the_logits_of_both_heads(name):
    model = distiller(name)
    shown = {}
    for path in (AUXILIARY, DECODE):
        module = model.student.get_submodule(path)
        module.register_forward_hook(lambda m, a, out, path=path: shown.setdefault(path, out))
    found = step(model)['kd.it.loss'].detach()
    own, deep = (shown[path].detach() for path in (AUXILIARY, DECODE))
    assert own.shape == deep.shape
    objective = MODELS.get(f'mmkd.{name}')(AUXILIARY, DECODE)
    objective.bind(model.student, model.student)
    trace = make_trace({AUXILIARY: own}, {DECODE: deep}, inputs=torch.zeros(2, 3, 64, 96))
    wanted = ready(objective, trace)(trace)['loss'] * objective.weight.value
    assert float(found) == pytest.approx(float(wanted), rel=1e-6) and float(found) > 0


@pytest.mark.parametrize('name', METHODS)
def test_the_decode_head_learns_nothing_from_it(name):
    model = distiller(name)
    step(model)['kd.it.loss'].backward()
    felt = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is not None}
    assert felt == {'backbone', 'auxiliary_head'}
    assert not any(
        n.startswith('backbone.layer4') and p.grad is not None for n, p in model.named_parameters()
    )  # behind the auxiliary head


@pytest.mark.parametrize('name', METHODS)
def test_with_weight_zero_the_segmentor_learns_as_alone(name):
    alone = segmentor()
    torch.manual_seed(0)
    wanted = alone(*segmentation_batch(2, (64, 96)), mode='loss')
    found = step(distiller(name, weight=0))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_several_auxiliary_heads_are_named_by_number():
    config = tiny_pspnet(4, auxiliary=True)
    other = dict(config['auxiliary_head'], in_channels=8, in_index=1)
    config['auxiliary_head'] = [other, config['auxiliary_head']]
    student = build_model(config)
    for i in (0, 1):
        model = distiller('CWD', student, f'auxiliary_head.{i}.conv_seg')
        assert model.plan.seen['it.student'], 'the probe reaches auxiliary heads'
        assert float(step(model)['kd.it.loss'].detach()) > 0


@pytest.mark.parametrize('name', METHODS)
def test_a_segmentor_without_auxiliary_head_is_refused(name):
    student = build_model(tiny_pspnet(4))
    with pytest.raises(TapError, match="has no module 'auxiliary_head.conv_seg'"):
        distiller(name, student)
