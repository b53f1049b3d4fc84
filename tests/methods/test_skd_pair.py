"""SKDPair against worked numbers and a transcription of the equations."""

import copy

import pytest
import torch
from segmentation_toys import ToySegmentor, check_memory, make_step, prepare, probe_tensors
from torch import nn
from torch.nn import functional as F

from mmkd.functional.pooling import pool_nodes
from mmkd.methods import skd_pair
from mmkd.methods.skd_pair import SKDPair, pair_wise

S, T, _ = probe_tensors()


def close(found, wanted, rel=1e-6):
    assert float(found) == pytest.approx(wanted, rel=rel, abs=1e-12)


def slow_pair_wise(s, t):
    total = 0.0
    for n in range(len(s)):
        flat = [x[n].flatten(1).T for x in (s, t)]
        for i in range(len(flat[0])):
            for j in range(len(flat[0])):
                a, b = (f[i] @ f[j] / (f[i].norm() * f[j].norm()) for f in flat)
                total += (a - b) ** 2 / len(flat[0]) ** 2 / len(s)
    return total


def test_probe():
    close(pair_wise(S, T), 0.4115535, 1e-6)
    assert float(pair_wise(S, T)) == pytest.approx(float(slow_pair_wise(S, T)), rel=1e-7)
    for pool, wanted in (('max', 0.00383261), ('avg', 0.2423892)):
        close(pair_wise(*(pool_nodes(x, pool, 2) for x in (S, T))), wanted, 1e-6)


def test_two_pixels():
    same = torch.ones(1, 2, 1, 2)
    orthogonal = torch.eye(2).view(1, 2, 1, 2)
    close(pair_wise(same, orthogonal), 0.5)


@pytest.mark.parametrize(('detach', 'norm'), [(True, 0.2106688), (False, 0.1400629)])
def test_gradient_with_and_without_the_norm(detach, norm):
    s = S.clone().requires_grad_()
    pair_wise(s, T, detach).backward()
    close(s.grad.norm(), norm, 1e-5)
    radial = (s.grad * S).sum(1).abs().max()
    assert float(radial) == pytest.approx(0.0478920 if detach else 0.0, abs=1e-7)


def test_gradient_numerically():
    s = S[:1, :, :3, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pair_wise(x, T[:1, :, :3, :4], False), s)


def test_many_nodes_give_the_same(monkeypatch):
    found = []
    for direct in (2048, 1):
        monkeypatch.setattr(skd_pair, '_DIRECT_NODES', direct)
        s = S.clone().requires_grad_()
        loss = pair_wise(s, torch.cat((T, T[:, :1]), 1))
        found.append((loss.detach(), torch.autograd.grad(loss, s)[0]))
        assert float(pair_wise(S, S)) == pytest.approx(0, abs=1e-15)
        close(pair_wise(S.float(), T.float()), 0.4115535, 1e-5)
    torch.testing.assert_close(found[0], found[1])


def test_invariances():
    scale = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double() + 0.5
    rotation = torch.linalg.qr(S.flatten()[:9].view(3, 3) + torch.eye(3)).Q
    wanted = float(pair_wise(S, T))
    close(pair_wise(S * scale, T), wanted)
    close(pair_wise(torch.einsum('kc,nchw->nkhw', rotation, S), T), wanted)
    close(pair_wise(S.flip(3), T.flip(3)), wanted)
    close(pair_wise(3 * S, T), wanted, 1e-7)
    assert pair_wise(S.flip(3), T) != pytest.approx(wanted)


def test_published_weight():
    assert float(str(SKDPair().weight)) == 0.5
    assert '0.5' in str(SKDPair(weight=dict(start=10)).weight)


def test_objective_learns_and_is_zero_at_equality():
    student, teacher = ToySegmentor(4), ToySegmentor(7)
    objective = prepare(SKDPair(), student, teacher)
    objective(make_step(objective, student, teacher))['loss'].backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    twin = copy.deepcopy(student)
    objective = prepare(SKDPair(), student, twin)
    student.eval()
    loss = objective(make_step(objective, student, twin))['loss'].detach()
    assert float(loss) == pytest.approx(0, abs=1e-6)


def prepare_taps(objective, student):
    objective.bind(student, student)
    return objective.student_taps[0]


def test_features_are_those_before_dropout():
    student = ToySegmentor()
    objective = prepare(SKDPair(), student, ToySegmentor())
    assert str(objective.student_taps[0]) == 'decode_head.dropout@in[0]'
    student.decode_head.dropout = None
    student.decode_head.forward = lambda feats: None
    assert str(prepare_taps(SKDPair(), student)) == 'decode_head.conv_seg@in[0]'


def test_unequal_strides_need_a_resize():
    student, teacher = ToySegmentor(stride=16), ToySegmentor()
    with pytest.raises(ValueError, match='has stride 16 and the teacher.* 8; tap maps'):
        prepare(SKDPair(), student, teacher)
    objective = prepare(SKDPair(resize='teacher'), student, teacher)
    assert objective(make_step(objective, student, teacher))['loss'].isfinite()


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: SKDPair(pool='min'), 'pool must be one of'),
        (lambda: SKDPair(pool_size=0), r"pool_size \(if not 'half'\) must be a whole number"),
        (lambda: SKDPair(resize='both'), 'resize must be'),
        (lambda: SKDPair().bind(nn.Module(), ToySegmentor()), 'without a decode_head'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_head_without_classifier_shows_its_features():
    student = ToySegmentor()
    del student.decode_head.conv_seg  # and its forward is not mmseg's
    assert str(prepare_taps(SKDPair(), student)) == 'backbone[-1]'


@pytest.mark.parametrize('value', [0.0, 1.0, 1e4])
def test_is_finite_for_constant_maps(value):
    s = torch.full((1, 3, 4, 4), value, requires_grad=True)
    pair_wise(s, T[:1].float()).backward()
    assert s.grad.isfinite().all()


def test_similarity_to_a_chosen_place():
    """The cell under the pixel is like itself; its map is the row of the affinity matrix."""
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(SKDPair(), *models)
    trace = make_step(objective, *models)
    *maps, mark = objective.views_at(trace, (20.0, 10.0))
    assert [view.side for view in maps] == ['student', 'teacher']
    for view, x in zip(maps, objective.maps(trace)[0], strict=True):
        unit = F.normalize(x.detach().flatten(2), dim=1)
        row = (unit.mT @ unit)[:, 1 * 6 + 2].clamp(min=0)  # stride 8: row 1, column 2 of 4 x 6
        torch.testing.assert_close(view.maps.detach().flatten(1), row, atol=1e-5, rtol=0)
        assert view.maps[:, 1, 2].detach().allclose(torch.ones(2))
    assert mark.boxes[0].tolist() == [0, 17, 7, 23, 13]
    middle = objective.views(trace)[0].maps
    torch.testing.assert_close(middle, objective.views_at(trace, (24.0, 16.0))[0].maps)


def test_peak_memory_at_crops_of_512_x_1024():
    check_memory(pair_wise, 2, 32)
