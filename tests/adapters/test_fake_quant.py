"""Layers with rounded weights: their parameters, gradients and baked twins."""

import copy

import pytest
import torch
from torch import nn

from mmkd.adapters.fake_quant import Latent, Rounding, bake, latent_modules, quantise_weight


@pytest.fixture
def pair():
    """A net of rounded layers, one of them in two places, and the same without."""
    torch.manual_seed(0)
    shared = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.ReLU(), shared, nn.Flatten())
    plain = copy.deepcopy(net)
    for layer, bits in ((net[0], 8), (shared, 2)):
        quantise_weight(layer, Rounding(bits))
    return net, plain


def test_names_and_parameters_stay(pair):
    net, plain = pair
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in plain.named_parameters()]
    net(torch.randn(1, 3, 8, 8))
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in net.state_dict().items())
    assert isinstance(net[0].weight, nn.Parameter)


def test_the_baked_plain_net_is_bit_equal(pair):
    net, plain = pair
    baked = bake(net, net.state_dict())
    assert set(baked) == {'0.weight', '1.weight', '3.weight'}
    plain.load_state_dict({**net.state_dict(), **baked})
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x), plain(x))
    assert all(len(channel.unique()) <= 3 for channel in baked['1.weight'])


def test_an_average_is_baked_and_not_what_trains(pair):
    net, _ = pair
    average = {key: 2 * value for key, value in net.state_dict().items()}
    baked, own = bake(net, average), bake(net, net.state_dict())
    torch.testing.assert_close(baked['1.weight'], 2 * own['1.weight'])
    assert torch.equal(average['1.weight'], 2 * net[1].weight), 'it stays as it is'


def test_every_unrounded_weight_gets_the_gradient_of_the_rounded(pair):
    net, plain = pair
    plain.load_state_dict({**net.state_dict(), **bake(net, net.state_dict())})
    x = torch.randn(2, 3, 8, 8)
    for one in (net, plain):
        one(x).square().mean().backward()
    for own, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad) and own.grad.any()


def test_copies_are_rounded_too(pair):
    net = copy.deepcopy(pair[0])
    assert [name for name, _ in latent_modules(net)] == ['0', '1', '3']
    assert net[1] is net[3]


def test_stochastic_in_training_alone():
    torch.manual_seed(0)
    layer = nn.Linear(50, 50)
    quantise_weight(layer, Rounding(2, 'flat:16', 'asymmetric', True))
    x = torch.randn(1, 50)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_failing_forward_leaves_the_parameter(pair):
    net, _ = pair
    with pytest.raises(RuntimeError):
        net[0](torch.randn(1, 7, 8, 8))
    assert 'weight' not in vars(net[0]) and isinstance(net[0].weight, nn.Parameter)


def test_who_has_latent_parameters_says_what_is_baked():
    with pytest.raises(NotImplementedError):
        Latent().baked(lambda x: x)
    assert Latent().begin() is None
