"""CIRKD's mini-batch term against worked numbers and the loop over pairs of images."""

import copy

import pytest
import torch
from segmentation_toys import ToySegmentor, check_memory, make_step, prepare, probe_tensors
from torch import nn
from torch.nn import functional as F

from mmkd.functional import similarity_kl
from mmkd.methods.cirkd import CIRKD, cross_image_relations

S, T, _ = probe_tensors()


def slow(s, t, tau):
    s, t = (F.normalize(x.flatten(2), dim=1) for x in (s, t))
    total = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            a, b = ((x[i].T @ x[j] / tau).softmax(1) for x in (s, t))
            total += (b * (b / a).log()).sum(1).mean() / len(s) ** 2
    return total


@pytest.mark.parametrize('tau', [0.1, 1.0])
def test_probe_and_transcription(tau):
    found = float(cross_image_relations(S, T, tau))
    assert found == pytest.approx(float(slow(S, T, tau)), rel=1e-6)
    wide = torch.cat((T, T[:, :1] ** 2), 1)
    found = float(cross_image_relations(S, wide, tau))
    assert found == pytest.approx(float(slow(S, wide, tau)), rel=1e-6)


def test_worked_numbers():
    assert float(cross_image_relations(S, T)) == pytest.approx(4.8108195, rel=1e-6)
    assert float(cross_image_relations(S.float(), T.float())) == pytest.approx(4.8108195, rel=1e-4)
    orthogonal, equal = torch.eye(2).view(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
    assert float(cross_image_relations(orthogonal, equal)) == pytest.approx(4.3068982, rel=1e-6)


def test_parts_give_the_same(monkeypatch):
    found = []
    for at_once in (2**24, 5 * 32):
        monkeypatch.setattr(similarity_kl, 'AT_ONCE', at_once)
        s = S.clone().requires_grad_()
        loss = cross_image_relations(s, T)
        torch.autograd.grad(loss, s, retain_graph=True)  # as the preflight checks do
        found.append((loss.detach(), torch.autograd.grad(loss, s)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_gradient_and_dead_pixels():
    s = S[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cross_image_relations(x, T[:1], 1.0), s)
    s = S.float().clone()
    s[0, :, 0, 0] = 0
    s.requires_grad_()
    cross_image_relations(s, T.float()).backward()
    assert s.grad.abs().max() < 1e5


def test_invariances():
    scale = torch.linspace(0.5, 2, 32).double().view(2, 1, 4, 4)
    wanted = float(cross_image_relations(S, T))
    assert float(cross_image_relations(S * scale, T)) == pytest.approx(wanted, rel=1e-6)
    assert float(cross_image_relations(S.flip(3), T.flip(3))) == pytest.approx(wanted)
    assert float(cross_image_relations(S.flip(3), T)) != pytest.approx(wanted)


def test_objective():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(CIRKD(tau=0.5), student, teacher)
    trace = make_step(objective, student, teacher)
    s, t = objective.maps(trace)[0]
    loss = objective(trace)['loss_batch']
    assert float(loss.detach()) == pytest.approx(float(slow(s, t, 0.5).detach()), rel=1e-4)
    loss.backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    pooled = prepare(CIRKD(tau=0.5, pool=2), student, teacher)(trace)['loss_batch']
    s, t = (F.avg_pool2d(x, 2) for x in (s, t))
    assert float(pooled.detach()) == pytest.approx(float(slow(s, t, 0.5).detach()), rel=1e-4)
    twin = copy.deepcopy(student.eval())
    objective = prepare(CIRKD(), student, twin)
    loss = objective(make_step(objective, student, twin))['loss_batch']
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: CIRKD(tau=0), 'tau must be a finite number above 0'),
        (lambda: CIRKD(pool=0), 'pool .* must be a whole number'),
        (lambda: CIRKD().bind(nn.Module(), ToySegmentor()), 'without a decode_head'),
        (
            lambda: prepare(CIRKD(), ToySegmentor(stride=16), ToySegmentor()),
            'has stride 16 and the teacher.* 8; tap maps',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_peak_memory_at_crops_of_512_x_1024():
    """It works in parts of one size, however many there are."""
    check_memory(lambda s, t: cross_image_relations(s[..., :36], t[..., :36]), 2, 8)


def test_the_automatic_pool_leaves_4096_cells():
    from mmkd.methods.cirkd import window

    assert [window(s) for s in ((64, 64), (64, 65), (128, 128), (97, 193), (1, 9000))] == [
        1,
        2,
        2,
        3,
        3,
    ]
    assert CIRKD().pool == 'auto' and CIRKD(pool=3.0).pool == 3
    with pytest.raises(ValueError, match="pool \\(if not 'auto'\\) must be a whole number"):
        CIRKD(pool='half')


def test_large_maps_are_pooled_and_small_ones_are_not(monkeypatch):
    from mmkd.methods import cirkd

    monkeypatch.setattr(cirkd, 'MOST_CELLS', 8)
    s, t = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    assert torch.equal(CIRKD().compare(s, t), CIRKD(pool=2).compare(s, t))
    assert torch.equal(
        CIRKD().compare(s[..., :2], t[..., :2]), CIRKD(pool=1).compare(s[..., :2], t[..., :2])
    )
