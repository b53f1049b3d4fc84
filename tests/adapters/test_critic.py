"""The critic of segmentation maps: its size, its parts, and how small a map may be."""

import pytest
import torch
from torch import nn

from mmkd.adapters.critic import Critic, SelfAttention


def critic(classes=3, others=0, first=None):
    torch.manual_seed(0)
    return Critic(classes, others, first or nn.BatchNorm2d(classes))


def test_published_number_of_parameters():
    assert sum(p.numel() for p in critic(19).parameters()) == 3_191_721


def test_width_of_all_layers():
    net = Critic(3, 0, nn.Identity(), width=16)
    assert [m.out_channels for m in net.layers if isinstance(m, nn.Conv2d)] == [16, 32, 64, 128, 1]
    assert net(torch.randn(2, 3, 64, 64)).shape == (2,)


@pytest.mark.parametrize(
    ('size', 'scores'),
    [((64, 64), (1, 1)), ((65, 65), (1, 1)), ((97, 97), (3, 3)), ((64, 128), (1, 5))],
)
def test_the_score_is_the_mean_of_a_map_of_scores(size, scores):
    net = critic().eval()
    x = torch.randn(2, 3, *size)
    found = net.layers(net.first(x))
    assert found.shape == (2, 1, *scores)
    torch.testing.assert_close(net(x), found.flatten(1).mean(1))


@pytest.mark.parametrize('size', [(63, 64), (64, 63)])
def test_smaller_maps_do_not_pass(size):
    with pytest.raises(RuntimeError):
        critic()(torch.randn(2, 3, *size))


def test_other_channels_pass_by_what_comes_first():
    net = critic(2, 3, nn.Tanh()).eval()
    x = torch.randn(1, 5, 64, 64)
    seen = torch.cat((x[:, :2].tanh(), x[:, 2:]), 1)
    torch.testing.assert_close(net(x), net.layers(seen).mean((1, 2, 3)))


def test_self_attention_place_by_place():
    torch.manual_seed(0)
    layer, x = SelfAttention(16).double(), torch.randn(2, 16, 3, 2, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    nn.init.constant_(layer.gamma, 0.7)
    for n in range(2):
        q, k, v = (f(x[n : n + 1])[0].flatten(1).T for f in (layer.query, layer.key, layer.value))
        assert q.shape == k.shape == (6, 2)
        for i in range(6):
            weights = torch.stack([(q[i] @ k[j]).exp() for j in range(6)])
            mixed = sum(weights[j] / weights.sum() * v[j] for j in range(6))
            wanted = x[n].flatten(1)[:, i] + 0.7 * mixed
            torch.testing.assert_close(layer(x)[n].flatten(1)[:, i], wanted)


def test_spectral_norm_and_where_it_is():
    net = critic()
    convolutions = [m for m in net.layers if isinstance(m, nn.Conv2d)]
    assert [hasattr(m, 'parametrizations') for m in convolutions] == [True] * 4 + [False]
    for layer in convolutions[:3]:
        spectrum = layer.parametrizations.weight[0]
        layer.parametrizations.weight.original.data.mul_(3)
        weight = [layer.weight.detach() for _ in range(60)][-1]
        assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=2e-2)
        before = spectrum._u.clone()
        net.eval()
        layer.weight  # noqa: B018  used: no power iteration
        assert torch.equal(spectrum._u, before)
        net.train()
        layer.weight  # noqa: B018  used: one
        v = spectrum._v.clone()
        layer.weight  # noqa: B018
        flat = layer.parametrizations.weight.original.flatten(1)
        wanted = torch.nn.functional.normalize(flat @ v, dim=0)
        torch.testing.assert_close(spectrum._u, wanted)
