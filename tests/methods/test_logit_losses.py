"""Losses on rows of logits, against worked numbers and their identities."""

import math
from unittest import mock

import pytest
import torch
from segmentation_toys import ToyClassifier, ToySegmentor, prepare
from torch.nn import functional as F

from mmkd.families import logits
from mmkd.functional.logits import decoupled_kl, soft_kl
from mmkd.methods import cskd
from mmkd.methods.confidence_penalty import ConfidencePenalty, entropy
from mmkd.methods.cskd import CSKD, partners
from mmkd.methods.eskd import ESKD
from mmkd.methods.l2_logit import L2Logit, half_squared_error
from mmkd.methods.logit_standardization import LogitStandardization, standardize
from mmkd.methods.lsr import LSR, cross_entropy_to_uniform
from mmkd.methods.noisy_teacher import NoisyTeacher, perturb
from mmkd.methods.prdkd import PRDKD, reconstruct
from mmkd.methods.tsd import TSD, top_score_difference
from mmkd.methods.wsld import WSLD, soft_cross_entropy, trust
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.testing import class_labels, label_maps, make_trace, tiny_faster_rcnn, tiny_retinanet

ZS = torch.tensor([[1, 2, 3], [0.5, -0.5, 0], [0, 1, -1]], dtype=torch.float64)
ZT = torch.tensor([[2, 1, 4], [1, 0, -1], [-1, 3, 0]], dtype=torch.float64)
Y = torch.tensor([2, 0, 1])
CE = F.cross_entropy(ZS, Y)


def images(objective, student=ZS, teacher=ZT, labels=Y, progress=0.0):
    """The objective's losses of a batch of images with these logits."""
    classes = student.shape[1]
    models = ToyClassifier(classes), ToyClassifier(classes)
    prepare(objective, *models)
    trace = make_trace(
        {'head.fc': student},
        {'head.fc': teacher} if objective.needs_teacher else None,
        samples=class_labels(labels),
        progress=progress,
    )
    return objective(trace)


def test_cross_entropy_of_the_fixture():
    assert float(CE) == pytest.approx(0.4984939, abs=1e-7)


def test_l2_logit():
    assert float(half_squared_error(ZS, ZT)) == pytest.approx(1.75)
    assert float(images(L2Logit())['loss']) == pytest.approx(1.1666667, abs=1e-7)
    assert float(images(L2Logit(variant='paper'))['loss']) == pytest.approx(1.75)
    assert float(half_squared_error(ZS + 1, ZT)) != pytest.approx(1.75), 'it is not shift invariant'


def test_centred_rows_are_the_limit_of_kd_at_high_temperature():
    s, t = (z - z.mean(1, keepdim=True) for z in (ZS, ZT))
    limit = half_squared_error(s, t) / ZS.shape[1]
    assert float(soft_kl(ZS, ZT, 1e4).mean()) == pytest.approx(float(limit), rel=1e-3)


def test_lsr_is_label_smoothing():
    uniform = images(LSR())['loss']
    assert float(uniform) == pytest.approx(float(cross_entropy_to_uniform(ZS)), rel=1e-6)
    total = 0.9 * CE + LSR.default_weight * uniform
    assert float(total) == pytest.approx(0.5818272, abs=1e-7)
    assert float(total) == pytest.approx(
        float(F.cross_entropy(ZS, Y, label_smoothing=0.1)), rel=1e-6
    )


def test_confidence_penalty():
    assert float(entropy(ZS).mean()) == pytest.approx(0.894995, abs=1e-6)
    assert float(CE - 0.1 * entropy(ZS).mean()) == pytest.approx(0.4089945, abs=1e-7)
    loss = images(ConfidencePenalty())['loss']
    assert float(loss) == pytest.approx(float(torch.tensor(3.0).log() - entropy(ZS).mean()))
    assert float(images(ConfidencePenalty(), torch.ones(2, 3), labels=Y[:2])['loss']) == (
        pytest.approx(0, abs=1e-6)
    )


def test_entropy_above_the_threshold_earns_nothing():
    student = torch.tensor([[1.0, 2, 3], [0.5, -0.5, 0], [0, 4, -1]]).requires_grad_()
    per_row = entropy(student.detach())
    threshold = float(per_row.sort().values[:2].mean())
    images(ConfidencePenalty(threshold=threshold), student)['loss'].backward()
    felt = student.grad.abs().sum(1) > 1e-9
    assert felt.tolist() == (per_row < threshold).tolist() and felt.any() and not felt.all()


def test_top_score_difference():
    assert float(top_score_difference(ZS, 2).mean()) == pytest.approx(0.3467698, abs=1e-7)
    loss = images(TSD(k=3))['loss']
    assert float(loss) == pytest.approx(0.4184812, abs=1e-7)
    assert float(0.6 * CE + 0.4 * loss) == pytest.approx(0.466489, abs=1e-6)
    assert float(images(TSD())['loss']) == float(loss), (
        'all three classes where there are but three'
    )
    assert float(top_score_difference(ZS + 5, 3).mean()) == pytest.approx(float(loss))
    assert float(top_score_difference(torch.zeros(1, 3), 3)) == 0
    with pytest.raises(ValueError, match='k must be a whole number of at least 2'):
        TSD(k=1)
    with pytest.raises(ValueError, match=r'k must lie in \[2, 3\].*found 4'):
        images(TSD(k=4))


def test_eskd_is_kd_until_it_stops():
    objective = ESKD(stop=0.5)
    assert float(images(objective)['loss']) == pytest.approx(0.4445310, abs=1e-7)
    assert [objective.weight(Progress(i, 4)) for i in range(4)] == [1, 1, 0, 0]
    faded = ESKD(stop=0.5, ramp='linear', weight=2.0).weight
    assert [faded(Progress(i, 4)) for i in range(4)] == [2, 1, 0, 0]
    assert [ESKD(stop=3).weight(Progress(i, 8)) for i in (2, 3)] == [1, 0]
    with pytest.raises(ValueError, match='own schedule'):
        ESKD(weight=dict(stop=0.3))
    with pytest.raises(ValueError, match='ramp'):
        ESKD(ramp='step')


def test_noisy_teacher():
    noisy = perturb(ZT, torch.tensor([[0.1], [-0.2], [0.0]]))
    assert float(half_squared_error(ZS, noisy)) == pytest.approx(1.865)
    for quiet in (dict(alpha=0.0), dict(sigma=0.0)):
        assert float(images(NoisyTeacher(**quiet))['loss']) == pytest.approx(1.75)


def test_noise_has_the_share_and_the_deviation_that_were_asked_for():
    many = torch.ones(20_000, 3)
    xi = NoisyTeacher(alpha=0.3, sigma=0.7).draw(many, 5)
    assert xi.shape == (20_000, 1)
    assert float((xi != 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(xi[xi != 0].std()) == pytest.approx(0.7, abs=0.02)
    by_logit = NoisyTeacher(noise='logit', alpha=1.0).draw(many, 5)
    assert by_logit.shape == many.shape and float(by_logit.std(1).min()) > 0


def test_noise_depends_on_seed_and_iteration_only():
    objective, again = NoisyTeacher(seed=1), NoisyTeacher(seed=1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = objective.draw(ZT, 7)
    assert torch.equal(torch.get_rng_state(), before), "the student's stream is its own"
    assert torch.equal(first, again.draw(ZT, 7))
    assert not torch.equal(objective.draw(ZT, 8), first)
    assert not torch.equal(NoisyTeacher(seed=2).draw(ZT, 7), first)


def test_expected_noise_adds_a_constant():
    alpha, sigma = 0.5, 0.6
    draws = [
        half_squared_error(ZS, perturb(ZT, NoisyTeacher(alpha=alpha, sigma=sigma).draw(ZT, i)))
        for i in range(4000)
    ]
    wanted = 1.75 + alpha * sigma**2 / 2 * ZT.square().sum(1).mean()
    assert float(torch.stack(draws).mean()) == pytest.approx(float(wanted), rel=0.05)


@pytest.mark.parametrize(('unbiased', 'wanted'), [(False, 0.0563367), (True, 0.0376849)])
def test_pr_dkd(unbiased, wanted):
    student, teacher = (reconstruct(z, 0.0, unbiased) for z in (ZS, ZT))
    target, others = decoupled_kl(student, teacher, Y, 4.0)
    assert float((target + 8 * others).mean()) / 16 == pytest.approx(wanted, abs=1e-7)


def test_pr_dkd_ignores_scale_and_offset_of_each_class():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, dtype=torch.float64)
    labels = torch.arange(6) % 3
    options = dict(eps=1e-12)
    first = images(PRDKD(**options), student, teacher, labels)
    scaled = student * torch.tensor([2.0, 0.5, 3.0]) + torch.tensor([1.0, -4.0, 0.0])
    second = images(PRDKD(**options), scaled, teacher, labels)
    for key in ('loss_target', 'loss_others'):
        assert float(first[key]) == pytest.approx(float(second[key]), rel=1e-6)
    plain = images(PRDKD(tau_square=False, **options), student, teacher, labels)
    assert float(first['loss_target']) == pytest.approx(16 * float(plain['loss_target']))
    columns = reconstruct(student)
    assert columns.mean(0).abs().max() < 1e-9
    torch.testing.assert_close(
        columns.var(0, correction=0), torch.ones(3).double(), atol=1e-4, rtol=0
    )


def test_pr_dkd_without_gradient_through_the_statistics():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, dtype=torch.float64)
    grads = []
    for detach in (False, True):
        leaf = student.clone().requires_grad_()
        sum(
            images(PRDKD(detach_stats=detach), leaf, teacher, torch.arange(6) % 3).values()
        ).backward()
        grads.append(leaf.grad)
    assert grads[0].sum(0).abs().max() < 1e-5 < grads[1].sum(0).abs().max()


def test_pr_dkd_has_nothing_to_say_about_three_rows():
    student = ZS.clone().requires_grad_()
    found = images(PRDKD(), student)
    assert all(float(v.detach()) == 0 and v.requires_grad for v in found.values())


def test_logit_standardization():
    assert float(images(LogitStandardization())['loss']) == pytest.approx(0.1794363, abs=1e-6)
    biased = [
        (z - z.mean(1, keepdim=True)) / z.std(1, correction=0, keepdim=True) for z in (ZS, ZT)
    ]
    assert float(soft_kl(*biased, 2.0).mean()) == pytest.approx(0.244849, abs=1e-6)
    affine = ZS * torch.tensor([[2.0], [0.3], [5.0]]) + torch.tensor([[1.0], [-2.0], [9.0]])
    assert float(images(LogitStandardization(), affine)['loss']) == pytest.approx(
        0.1794363, abs=1e-6
    )
    assert standardize(torch.full((2, 3), 4.0)).abs().max() == 0
    wide = standardize(F.one_hot(torch.zeros(1).long(), 100).double())
    assert float(wide.max()) == pytest.approx(99 / 10, rel=1e-5)


def test_logit_standardization_before_dkd():
    found = images(LogitStandardization(loss='dkd', beta=2.0))
    target, others = decoupled_kl(standardize(ZS), standardize(ZT), Y, 2.0)
    assert float(found['loss_target']) == pytest.approx(float(target.mean()), rel=1e-4)
    assert float(found['loss_others']) == pytest.approx(2 * float(others.mean()), rel=1e-4)


def test_wsld():
    weight = trust(ZS, ZT, Y)
    torch.testing.assert_close(
        weight, torch.tensor([0.909269, 0.811553, 0.997943]).double(), atol=1e-6, rtol=0
    )
    loss = images(WSLD())['loss']
    assert float(loss) == pytest.approx(3.5373551, abs=1e-6)
    assert float(CE + 2.5 * loss) == pytest.approx(9.341882, abs=1e-5)
    assert float(trust(100 * F.one_hot(Y).double(), ZT, Y).max()) == pytest.approx(0, abs=1e-6)


def test_wsld_has_the_gradient_of_the_divergence():
    leaf = ZS.clone().requires_grad_()
    own = torch.autograd.grad(soft_cross_entropy(leaf, ZT, 2.0).sum(), leaf)[0]
    torch.testing.assert_close(own, torch.autograd.grad(soft_kl(leaf, ZT, 2.0).sum(), leaf)[0])


def test_cskd():
    student = torch.cat((ZS, ZT)).requires_grad_()
    loss = images(CSKD(), student, labels=torch.cat((Y, Y)))['loss']
    assert float(loss) == pytest.approx(0.4445310, abs=1e-7)
    loss.backward()
    assert student.grad[:3].abs().sum() > 0 and not student.grad[3:].any()
    same = torch.cat((ZS, ZS))
    assert float(images(CSKD(), same, labels=torch.cat((Y, Y)))['loss']) == pytest.approx(0)
    for labels in (torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 0, 0])):
        with pytest.raises(ValueError, match='ClassPairSampler'):
            images(CSKD(), student[: len(labels)], labels=labels)


def test_partners_are_of_one_class_and_no_row_is_its_own():
    target = torch.tensor([2, 0, 2, 1, 0, 2, 0, 0])
    anchor, partner = partners(target)
    assert anchor.tolist() == [1, 4, 6, 7, 0, 2, 5], 'the only 1 has no partner'
    assert partner.tolist() == [6, 7, 1, 4, 5, 0, 2]
    assert torch.equal(target[anchor], target[partner])
    assert not len(partners(torch.arange(4))[0]) and not len(partners(target[:0])[0])


def on_rois(objective, scores, labels):
    """As on a two-stage detector of two classes, whose background is the last column."""
    objective.kind = 'rois'
    objective.classes = 2
    trace = make_trace({'x': scores})
    with mock.patch.object(logits, 'rows', return_value=logits.Rows(scores, scores, labels)):
        return objective(trace)['loss']


def test_regularisers_leave_background_rois_alone():
    scores = torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 0, 9], [1, 0, 0], [5, 5, 5]])
    labels, objects = torch.tensor([0, 1, 2, 0, 2]), [0, 1, 3]
    wanted = {
        LSR: cross_entropy_to_uniform(scores[objects]),
        ConfidencePenalty: math.log(3) - entropy(scores[objects]).mean(),
        TSD: (lambda p: (p.amax(1) - p.amin(1)).mean())(scores[objects].softmax(1)[:, :2]),
        CSKD: soft_kl(scores[[0, 3]], scores[[3, 0]], 4.0).mean(),
    }
    for cls, value in wanted.items():
        objective = cls(k=2) if cls is TSD else cls()
        assert float(on_rois(objective, scores, labels)) == pytest.approx(float(value)), cls
        nothing = on_rois(objective, scores.clone().requires_grad_(), torch.full((5,), 2))
        assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_thousands_of_pixels_are_thinned_out_for_cskd(monkeypatch):
    monkeypatch.setattr(cskd, 'MOST', 3)
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 1])
    rows = [0, 2, 4]
    anchor, partner = partners(labels[rows])
    wanted = soft_kl(scores[rows][anchor], scores[rows][partner], 4.0).mean()
    assert float(on_rois(CSKD(), scores, labels)) == pytest.approx(float(wanted))


LOSSES = (ESKD, L2Logit, LogitStandardization, NoisyTeacher, PRDKD, WSLD)


@pytest.mark.parametrize('cls', [*LOSSES, LSR, ConfidencePenalty], ids=lambda c: c.__name__)
def test_pixels_are_rows_and_those_without_label_are_left_out(cls):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    maps = torch.randint(0, 3, (2, 8, 10))
    maps[0, :4] = 255
    objective = cls()
    prepare(objective, ToySegmentor(), ToySegmentor())
    sides = [{'decode_head.conv_seg': z} for z in (student, teacher)]
    found = objective(
        make_trace(sides[0], sides[1] if cls.needs_teacher else None, samples=label_maps(maps))
    )
    labels = maps[:, ::2, ::2]
    keep = labels != 255
    wanted = images(cls(), *(z.permute(0, 2, 3, 1)[keep] for z in (student, teacher)), labels[keep])
    assert 0 < int(keep.sum()) < keep.numel()
    for key, value in wanted.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-6), key


@pytest.mark.parametrize('cls', LOSSES, ids=lambda c: c.__name__)
def test_what_is_refused(cls):
    with pytest.raises(ValueError, match='class counts.* 3 .* 4'):
        cls().bind(ToyClassifier(3), ToyClassifier(4))
    with pytest.raises(ValueError, match='a softmax over one class is always 1'):
        cls().bind(ToyClassifier(1), ToyClassifier(1))
    with pytest.raises(ValueError, match='RoIs, pixels or images'):
        cls().bind(ToyClassifier(3), ToySegmentor())
    with pytest.raises(ValueError, match='RoIs, pixels or images.*RetinaHead'):
        cls().bind(*(build_model(tiny_retinanet(width=4)) for _ in range(2)))
    with pytest.raises(ValueError, match='takes no taps'):
        cls(student='neck').bind(*(build_model(tiny_faster_rcnn(width=4)) for _ in range(2)))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: NoisyTeacher(alpha=1.5), 'the share alpha must be'),
        (lambda: NoisyTeacher(sigma=-1), 'sigma must be'),
        (lambda: NoisyTeacher(noise='batch'), 'noise must be one of'),
        (lambda: L2Logit(variant='huber'), 'variant must be one of'),
        (lambda: LogitStandardization(loss='mse'), 'loss must be one of'),
        (lambda: PRDKD(alpha=float('nan')), 'alpha must be a finite'),
        (lambda: WSLD(tau=0), 'tau must be a finite number above 0'),
        (lambda: ConfidencePenalty(threshold=-1), 'threshold must be'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_must_be_of_one_size():
    objective = L2Logit()
    prepare(objective, ToySegmentor(), ToySegmentor())
    sides = [{'decode_head.conv_seg': torch.zeros(1, 3, *size)} for size in ((4, 4), (8, 8))]
    with pytest.raises(ValueError, match='differ in size'):
        objective(make_trace(*sides, samples=label_maps(torch.zeros(1, 8, 8).long())))
    assert set(logits.KINDS) == set(L2Logit.families)
