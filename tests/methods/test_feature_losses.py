"""Losses on feature maps of classifiers, against worked numbers and their identities."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.methods.ab import AB, boundary_error
from mmkd.methods.fitnet import FitNet, hint_error
from mmkd.methods.fsp import FSP, flow, flow_error
from mmkd.methods.kdsvd import KDSVD, correlation, singular_distance
from mmkd.methods.nst import NST, neuron_mmd
from mmkd.methods.ofd import OFD, margin_of, measured_margin, partial_square
from mmkd.methods.reviewkd import Fusion, ReviewKD, hierarchical_context
from mmkd.methods.vid import VID, gaussian_nll
from mmkd.teacher import build_model
from mmkd.testing import make_trace, ready, tiny_classifier, tiny_retinanet

i = torch.arange(16, dtype=torch.float64)
FS, FT = ((i - 7) / 4).view(2, 2, 2, 2), (((5 * i) % 9 - 4) / 4).view(2, 2, 2, 2)
FS2, FT2 = (((3 * i) % 7 - 3) / 4).view(2, 2, 2, 2), (((7 * i) % 11 - 5) / 4).view(2, 2, 2, 2)


def on_maps(objective, *maps):
    """Set up for the maps of (student, teacher) at taps 'a', 'b', …, and run."""
    sides = [dict(zip('abc', side, strict=False)) for side in maps]
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(*sides)
    return ready(objective, trace)(trace)


def test_hint():
    assert float(hint_error(FS, FT)) == pytest.approx(1.5625)
    assert float(hint_error(FS, FT, 'paper')) == pytest.approx(6.25)
    found = on_maps(FitNet('a', adapt='auto'), [FS], [FT])
    assert float(found['loss']) == pytest.approx(1.5625)
    assert float(on_maps(FitNet('a', adapt='auto', variant='paper'), [FS], [FT])['loss']) == 6.25


def test_hint_of_unequal_maps_is_taken_at_the_size_of_the_teacher():
    torch.manual_seed(0)
    found = on_maps(FitNet('a'), [torch.randn(2, 3, 8, 8)], [torch.randn(2, 5, 4, 4)])
    assert float(found['loss'].detach()) > 0


@pytest.mark.parametrize(
    ('kernel', 'wanted'), [('linear', 1.8089705), ('poly', 1.3074283), ('gaussian', 0.6715095)]
)
def test_nst(kernel, wanted):
    assert float(neuron_mmd(FS, FT, kernel)) == pytest.approx(wanted, abs=1e-6)
    assert float(on_maps(NST('a', kernel=kernel), [FS], [FT])['loss']) == (
        pytest.approx(wanted, abs=1e-5)
    )
    permuted = FS[:, [1, 0]]
    assert float(neuron_mmd(permuted, FT, kernel)) == pytest.approx(wanted, abs=1e-6)
    assert abs(float(neuron_mmd(FS, FS, kernel))) < 1e-12


def test_nst_is_one_number_whichever_gram_matrix_is_smaller():
    torch.manual_seed(0)
    few, many = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 40, 4, 4).double()
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (few, many))
    literal = sum(
        sum(float(a @ b) ** 2 for a in x for b in y) / (len(x) * len(y)) * sign
        for k in range(2)
        for x, y, sign in ((s[k], s[k], 1), (t[k], t[k], 1), (s[k], t[k], -2))
    )
    assert float(neuron_mmd(few, many)) == pytest.approx(literal / 2)
    assert float(neuron_mmd(few, few[:, :1])) == pytest.approx(
        float(neuron_mmd(few, few[:, :1].repeat(1, 30, 1, 1)))
    ), 'copies of a neuron do not change its distribution'


def test_nst_survives_dead_neurons_and_pools_the_larger_map():
    dead = FS.clone()
    dead[:, 0] = 0
    dead.requires_grad_()
    neuron_mmd(dead, FT, 'gaussian').backward()
    assert dead.grad.isfinite().all()
    large = FT.repeat_interleave(2, 2).repeat_interleave(3, 3)
    found = on_maps(NST('a'), [FS], [large])
    assert float(found['loss']) == pytest.approx(1.3074283, abs=1e-5)


def test_vid():
    assert float(gaussian_nll(FS, FT, torch.full((2,), 5.0))) == pytest.approx(0.9609690, abs=1e-7)
    best = torch.full((2,), 1.5625, dtype=torch.float64, requires_grad=True)
    value = gaussian_nll(FS, FT, best)
    assert float(value.detach()) == pytest.approx(0.723144, abs=1e-6)
    assert abs(float(torch.autograd.grad(value, best)[0].sum())) < 1e-12


def test_vid_starts_at_the_asked_variance_and_trains_it():
    torch.manual_seed(0)
    objective = VID('a', variance=5.0)
    found = on_maps(objective, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 6, 4, 4)])
    assert float(found['variance']) == pytest.approx(5.0, rel=1e-6)
    assert float(objective.rho[0][0].detach()) == pytest.approx(4.99323, abs=1e-5)
    found['loss'].backward()
    assert objective.rho[0].grad.any() and objective.rho[0].shape == (6,)
    assert len(list(objective.adapters['0'].parameters())) == 3
    with pytest.raises(ValueError, match='variance must be'):
        VID(variance=0)


def test_ab():
    error = boundary_error(FS, FT)
    assert float(error.flatten(1).sum(1).mean()) == pytest.approx(18.625)
    assert float(error.mean()) == pytest.approx(2.328125)
    at_zero = boundary_error(torch.zeros(1), torch.tensor([3.0]), margin=2.0)
    assert float(at_zero) == 4.0
    assert float(boundary_error(torch.tensor([1.0, -1.0]), torch.tensor([9.0, -0.1])).sum()) == 0


def test_ab_counts_earlier_levels_half_and_reports_disagreement():
    def run(objective, *pairs):
        objective.bind(nn.Module(), nn.Module())
        trace = make_trace(
            *(dict(zip('ab', side, strict=False)) for side in zip(*pairs, strict=True))
        )
        ready(objective, trace)
        for adapter in objective.adapters.values():
            nn.init.dirac_(adapter.conv.weight)
            adapter.norm = nn.Identity()
        return objective(trace)

    one = run(AB('a'), (FS, FT))
    assert float(one['loss']) == pytest.approx(18.625, rel=1e-6)
    assert float(one['disagreement']) == pytest.approx(0.5625)
    small = torch.nn.functional.max_pool2d(FT, 2)
    last = run(AB('a'), (small, -small))['loss']
    two = run(AB(['a', 'b']), (FS, FT), (small, -small))['loss']
    assert float(two) == pytest.approx(18.625 / 2 + float(last), rel=1e-6)
    assert float(run(AB('a', reduction='mean'), (FS, FT))['loss']) == pytest.approx(2.328125)


def test_ofd():
    cut = FT.clamp(min=-0.5)
    assert float(partial_square(FS, cut).flatten(1).sum(1).mean()) == pytest.approx(11.03125)
    active = (cut < FS) | (cut > 0)
    assert float(active.double().mean()) == pytest.approx(0.75)
    leaf = FS.clone().requires_grad_()
    partial_square(leaf, cut).sum().backward()
    assert not leaf.grad[(cut <= 0) & (cut >= FS)].any() and leaf.grad.any()


def test_ofd_margins():
    mean, std = torch.tensor([0.0, 0.5, 5.0]), torch.tensor([1.0, 0.3, 1.0])
    wanted = torch.tensor([-0.797885, -0.124460, -3.0], dtype=torch.float64)
    torch.testing.assert_close(margin_of(mean, std), wanted, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    drawn = torch.randn(400, 1, 30, 30) * 0.3 + 0.5
    assert float(measured_margin(drawn)) == pytest.approx(-0.1245, abs=2e-3)
    assert float(measured_margin(drawn.abs())) == 0


def test_ofd_takes_margins_from_the_batchnorms_or_from_the_first_batch():
    models = [build_model(tiny_classifier(width=w)) for w in (4, 8)]
    norms = [m for m in models[1].modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.constant_(norm.bias, 0.5)
        nn.init.constant_(norm.weight, -0.3)
    objective = OFD()
    objective.bind(*models)
    assert objective.known == 3
    assert float(objective.margin_0[0]) == pytest.approx(-0.124460, abs=1e-6)

    measured = OFD('a')
    on_maps(measured, [FS], [FT])
    torch.testing.assert_close(measured.margin_0, measured_margin(FT).float())
    before = measured.margin_0.clone()
    trace = make_trace({'a': FS}, {'a': 2 * FT})
    measured(trace)
    assert torch.equal(measured.margin_0, before), 'the first batch decides'
    with pytest.raises(ValueError, match="norms names 'backbone.nothing'.*no BatchNorm"):
        OFD(norms=['backbone.nothing']).bind(*models)


def test_hierarchical_context():
    ramp = (torch.arange(64, dtype=torch.float64) / 64).view(1, 1, 8, 8)
    assert float(hierarchical_context(ramp, torch.zeros_like(ramp))) == (
        pytest.approx(0.3163045, abs=1e-7)
    )
    for size in (1, 2, 3, 4, 5, 9):
        x = torch.zeros(2, 3, size, size + 1)
        assert float(hierarchical_context(x + 0.5, x)) == pytest.approx(0.25)


def test_review_has_the_published_number_of_parameters():
    widths, mid = [64, 128, 256, 256], 256
    fusions = [Fusion(w, mid, w, fuse=k < 3) for k, w in enumerate(widths)]
    assert sum(p.numel() for f in fusions for p in f.parameters()) == 1_808_774


def test_review_goes_from_deep_to_shallow():
    torch.manual_seed(0)
    objective = ReviewKD('abc', max_mid=4)
    sizes = (8, 4, 2)
    student = [torch.randn(2, 3 + k, s, s, requires_grad=True) for k, s in enumerate(sizes)]
    teacher = [torch.randn(2, 5 + k, s, s) for k, s in enumerate(sizes)]
    objective = ReviewKD(['a', 'b', 'c'], max_mid=4)
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(
        dict(zip('abc', student, strict=True)), dict(zip('abc', teacher, strict=True))
    )
    ready(objective, trace)
    assert [f.attend is None for f in objective.fusions] == [False, False, True]
    assert objective.fusions[0].reduce[0].out_channels == 4
    first, fused = objective.fusions[2](student[2], None, (2, 2))
    assert first.shape == (2, 7, 2, 2) and fused.shape == (2, 4, 2, 2)
    shallow, _ = objective.fusions[0](student[0], fused, (8, 8))
    gradient = torch.autograd.grad(shallow.sum(), student[2], retain_graph=True)[0]
    assert gradient.any(), 'the deep map takes part in the review of the shallow one'
    assert float(objective(trace)['loss'].detach()) > 0


def test_flow():
    gram = flow(FS, FS2)
    wanted = torch.tensor([[0.15625, 0.078125], [0.09375, -0.046875]], dtype=torch.float64)
    torch.testing.assert_close(gram[0], wanted)
    pair = gram, flow(FT, FT2)
    assert float(flow_error(*pair)) == pytest.approx(0.2044678, abs=1e-7)
    assert float(flow_error(*pair, 'frobenius')) == pytest.approx(0.8178711, abs=1e-7)
    torch.testing.assert_close(flow(3 * FS, 3 * FS2), 9 * gram)
    order = torch.randperm(4)
    mixed = [x.flatten(2)[..., order].view_as(x) for x in (FS, FS2)]
    torch.testing.assert_close(flow(*mixed), gram)
    large = FS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for pool in ('max', 'avg'):
        torch.testing.assert_close(flow(large, FS2, pool), gram)


def test_fsp():
    found = on_maps(FSP(['a', 'b']), [FS, FS2], [FT, FT2])
    assert float(found['loss']) == pytest.approx(0.2044678, abs=1e-6)
    found = on_maps(FSP(['a', 'b'], reduction='frobenius'), [FS, FS2], [FT, FT2])
    assert float(found['loss']) == pytest.approx(0.8178711, abs=1e-6)
    wide = torch.cat((FT, FT), 1)
    assert float(on_maps(FSP(['a', 'b']), [FS, FS2], [wide, FT2])['loss'].detach()) > 0
    with pytest.raises(ValueError, match="equal widths, but 'a' has 2 and 'a' 4"):
        on_maps(FSP(['a', 'b'], adapt=False), [FS, FS2], [wide, FT2])
    with pytest.raises(ValueError, match='two or more taps.*found 1 and 1'):
        on_maps(FSP('a'), [FS], [FT])


def test_fsp_begins_in_front_of_the_first_stage():
    objective = FSP()
    objective.bind(*(build_model(tiny_classifier(width)) for width in (4, 8)))
    wanted = ['backbone.relu', *(f'backbone.layer{k}' for k in (1, 2, 3))]
    assert [str(tap) for tap in objective.student_taps] == wanted
    assert [str(tap) for tap in objective.teacher_taps] == wanted


def literal_singular_distance(spare):
    """By LAPACK's SVD, with the teacher's largest entry made positive."""
    total = 0.0
    for image in range(2):
        ends = []
        for s, t in ((FS, FT), (FS2, FT2)):
            v_s, v_t = (torch.linalg.svd(x[image].flatten(1).T).Vh for x in (s, t))
            wanted = v_t[0] * v_t[0][v_t[0].abs().argmax()].sign()
            chosen = max(v_s[: 1 + spare], key=lambda v: abs(float(v @ wanted)))  # noqa: B023
            ends.append((chosen * (chosen @ wanted).sign(), wanted))
        for p in range(2):
            for q in range(2):
                own, wanted = (
                    math.exp(-(float(ends[1][side][p] - ends[0][side][q]) ** 2) / 8)
                    for side in (0, 1)
                )
                total += (own - wanted) ** 2
    return total / 2


@pytest.mark.parametrize('spare', [0, 1])
def test_kdsvd(spare):
    found = float(singular_distance((FS, FS2), (FT, FT2), spare=spare))
    assert found == pytest.approx(literal_singular_distance(spare), abs=1e-7)
    scaled = float(singular_distance((3 * FS, -FS2), (FT, FT2), spare=spare))
    assert scaled == pytest.approx(found), 'neither scale nor sign matters'
    assert float(singular_distance((FT, FT2), (FT, FT2), spare=spare)) == pytest.approx(
        0, abs=1e-12
    )
    assert correlation(torch.zeros(2, 3, 1), torch.zeros(2, 5, 1)).shape == (2, 5, 3, 1)


def test_kdsvd_has_one_of_the_values_that_signs_allow():
    found = float(singular_distance((FS, FS2), (FT, FT2), spare=1))
    assert min(abs(found - v) for v in (0.02219, 0.02361, 0.02452, 0.02595)) < 1e-5


def test_kdsvd_survives_repeated_singular_values():
    same = torch.eye(4).view(1, 4, 2, 2).requires_grad_()
    other = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    singular_distance((same, same), (other, -other)).backward()
    assert same.grad.isfinite().all()
    found = on_maps(KDSVD(['a', 'b']), [FS, FS2], [torch.cat((FT, FT), 1), FT2])
    assert float(found['loss'].detach()) > 0
    with pytest.raises(ValueError, match='count must be'):
        KDSVD(count=0)


@pytest.mark.parametrize('cls', [AB, OFD])
def test_connectors_start_as_the_authors_do(cls):
    torch.manual_seed(0)
    objective = cls('a')
    on_maps(objective, [torch.randn(2, 32, 2, 2)], [torch.randn(2, 128, 2, 2)])
    weight = objective.adapters['0'].conv.weight
    assert float(weight.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert objective.adapters['0'].conv.bias is None


@pytest.mark.parametrize('cls', [FitNet, NST, VID, AB, OFD, ReviewKD, FSP, KDSVD])
def test_other_models_need_taps(cls):
    detectors = [build_model(tiny_retinanet(width=4)) for _ in range(2)]
    with pytest.raises(ValueError, match=r'name|tap'):
        cls().bind(*detectors)


def test_softplus_of_the_start_is_the_variance():
    rho = math.log(math.expm1(5.0 - 1e-5))
    assert rho == pytest.approx(4.99323, abs=1e-5)
