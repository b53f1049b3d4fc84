"""Critics: their size, their parts, how small a map may be, and one that is too sure."""

import pytest
import torch
from torch import nn

from mmkd.adapters.critic import Certainty, Critic, SelfAttention, judged, patch_layers
from mmkd.schedule import Progress


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


def test_a_judged_network_learns_nothing():
    net, x = nn.Linear(2, 1), torch.randn(3, 2, requires_grad=True)
    answer = judged(net, x)
    assert torch.equal(answer, net(x))
    answer.sum().backward()
    assert net.weight.grad is None and torch.equal(x.grad, net.weight.detach().expand(3, 2))


@pytest.mark.parametrize(
    ('size', 'wanted'), [((8, 12), (2, 3)), ((9, 5), (3, 2)), ((1, 1), (1, 1))]
)
def test_patches(size, wanted):
    net = patch_layers(3, 8)
    assert net(torch.randn(1, 3, *size)).shape == (1, 8, *wanted)
    convolutions = [m for m in net if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(3, 8), (8, 8)]
    assert all(hasattr(m, 'parametrizations') for m in convolutions)


def test_a_critic_that_is_sure_for_a_tenth_of_the_run_is_told_of_once(log):
    certainty, sure = Certainty('Some'), torch.tensor(0.96)
    for i in range(19):
        certainty(torch.tensor(0.95) if i % 2 else sure, Progress(i, 40))
    assert 'Some' not in log.text
    for i in range(19, 40):
        certainty(sure, Progress(i, 40))
    assert log.text.count('Some: for 4 iterations its critic has been right in more than 95%') == 1
    assert int(certainty.steps) == 22


def test_runs_of_less_than_ten_steps_say_nothing(log):
    certainty = Certainty('Some')
    for i in range(9):
        certainty(torch.tensor(1.0), Progress(i, 9))
    assert not log.text
