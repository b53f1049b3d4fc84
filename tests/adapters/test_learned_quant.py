"""Numbers that quantisers learn: where they begin, what they round to, what is baked."""

import copy

import pytest
import torch
from torch import nn

from mmkd.adapters.fake_quant import Rounding, bake
from mmkd.adapters.learned_quant import (
    CALIBRATION,
    Clip,
    LearnedPoints,
    LearnedStep,
    clip_relu,
    learn_weight,
)
from mmkd.functional.fake_quantise import to_rows


def learning(form, axis='channel', bits=3):
    """A net of one layer, its numbers under ``edits``, and the plain net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    plain = copy.deepcopy(net)
    net.edits = nn.ModuleDict({'0': learn_weight(net[0], Rounding(bits, axis, form))})
    net.forward = lambda x: net[0](x)
    net[0].begin()
    return net, plain


@pytest.mark.parametrize('form', ['lsq', 'points'])
@pytest.mark.parametrize('axis', ['channel', 'tensor', 'flat:16'])
def test_numbers_train_and_the_plain_net_computes_the_same(form, axis):
    net, plain = learning(form, axis)
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05)
    x, before = torch.randn(2, 3, 8, 8), copy.deepcopy(net.state_dict())
    for _ in range(3):
        optimiser.zero_grad()
        (net(x) - 1).square().mean().backward()
        optimiser.step()
    state = net.state_dict()
    name = {'lsq': 'step', 'points': 'points'}[form]
    assert not torch.equal(state[f'edits.0.{name}'], before[f'edits.0.{name}'])
    moved = not torch.equal(state['0.weight'], before['0.weight'])
    assert moved == (form == 'lsq'), 'weights with learned points do not train'
    baked = bake(net, state)
    plain.load_state_dict({'0.bias': state['0.bias'], **baked})
    assert torch.equal(plain(x), net(x))
    assert all(len(row.unique()) <= 8 for row in to_rows(baked['0.weight'], axis)[:-1])
    assert torch.equal(net[0].learned[0](baked['0.weight']), baked['0.weight']), 'once is enough'


def test_an_average_of_numbers_is_baked():
    net, _ = learning('lsq')
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state['edits.0.step'] *= 4
    wide = bake(net, state)['0.weight']
    assert not torch.equal(wide, bake(net, net.state_dict())['0.weight'])
    net[0].learned[0].step.data *= 4
    assert torch.equal(wide, bake(net, net.state_dict())['0.weight'])


def test_where_they_begin():
    weight = torch.tensor([[0.9, -0.35, 0.1, -1.6]])
    step = LearnedStep(weight, Rounding(2, form='lsq'))
    step.begin(weight)
    assert step.step.item() == pytest.approx(1.475)
    weight = torch.linspace(-1, 3, 401)[None]
    points = LearnedPoints(weight, Rounding(2, form='points'))
    points.begin(weight)
    assert points.points.tolist() == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.01)
    assert (points.low.item(), points.size.item()) == (-1, 4)


def test_copies_keep_layer_and_numbers_together():
    net = copy.deepcopy(learning('lsq')[0])
    assert net[0].learned[0] is net.edits['0']


def rectified(**options):
    relu = nn.ReLU(inplace=True)
    clip = Clip(2, **options)
    clip_relu(relu, clip)
    return relu, clip


def test_the_largest_activation_begins_at_the_mean_of_percentiles():
    relu, clip = rectified()
    x = torch.arange(1.0, 1001)
    relu.train()
    for index in range(CALIBRATION):
        assert torch.equal(relu((index + 1) * x), (index + 1) * x), 'nothing is rounded yet'
    assert clip.most.item() == pytest.approx(999 * 5.5)
    assert relu(x * 1e6).max().item() == pytest.approx(999 * 5.5)
    assert len(relu(x * 1e3).unique()) <= 4


def test_without_training_it_is_a_relu():
    relu, clip = rectified()
    relu.eval(), clip.eval()
    x = torch.randn(50)
    assert torch.equal(relu(x), x.clamp(min=0)) and int(clip.passes) == 0


def test_every_number_gets_a_gradient_from_the_first_step_on():
    relu, clip = rectified()
    relu(torch.randn(50)).sum().backward()
    assert clip.most.grad.tolist() == [0]


def test_loaded_numbers_count_at_once():
    relu, clip = rectified()
    relu(torch.randn(50))
    state = dict(clip.state_dict(), most=torch.tensor([2.0]), passes=torch.tensor(CALIBRATION))
    clip.load_state_dict(state)
    x = torch.tensor([-1, 0.3, 1.4, 2.5])
    assert relu(x).tolist() == pytest.approx([0, 0, 4 / 3, 2])


def test_a_largest_value_that_is_set_has_no_state():
    relu, clip = rectified(most=2)
    assert not clip.state_dict() and not [*clip.parameters()]
    x = torch.tensor([-1, 0.3, 1.4, 2.5])
    assert relu(x.clone()).tolist() == pytest.approx([0, 0, 4 / 3, 2])
    assert relu(x.half()).dtype == torch.half


@pytest.mark.parametrize('form', ['lsq', 'points'])
def test_a_layer_computes_nearly_the_same_before_training(form):
    """What a plan shows of eight bits: without numbers of the weights all of them are 0, or 1."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    x = torch.randn(2, 3, 8, 8)
    plain = net(x)
    numbers = learn_weight(net, Rounding(8, 'channel', form))
    assert (net(x) - plain).abs().max() < 0.1 and isinstance(numbers, nn.Module)


@pytest.mark.parametrize('passes', [0, CALIBRATION])
def test_float16_has_room_for_the_gradient_of_the_largest_activation(passes):
    """Of 16 bits, and of a sum over a map."""
    clip = Clip(16)
    clip.passes.fill_(passes)
    x = torch.full((2, 64, 32, 32), 3.0).half().requires_grad_()
    y = clip(x)
    assert y.dtype == torch.float16 and y.unique().tolist() == [1 if passes else 3]
    y.backward(torch.full_like(y, 2))
    assert clip.most.grad.tolist() == [2 * x.numel() if passes else 0]
    assert x.grad.unique().tolist() == [0 if passes else 2]
