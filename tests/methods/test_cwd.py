"""CWD against the numbers of its sheets and a literal transcription of equations 2 to 4."""

import pytest
import torch
from segmentation_toys import ToySegmentor, prepare, probe_tensors

from mmkd.functional.standardise import batch_standardise
from mmkd.methods.cwd import CWD, channel_distribution, channel_wise_kl
from mmkd.testing import ToyNet, label_maps, make_trace, ready

S, T, LABELS = probe_tensors()


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def literal(student, teacher, tau):
    n, c, h, w = student.shape
    total = 0.0
    for i in range(n):
        for j in range(c):
            p, q = (
                ((x[i, j] / tau).exp() / (x[i, j] / tau).exp().sum()) for x in (teacher, student)
            )
            total += (p * (p / q).log()).sum()
    return tau**2 * total / (n * c)


@pytest.mark.parametrize(('tau', 'wanted'), [(1, 0.407031), (4, 0.309619)])
def test_cwd_1_four_places(tau, wanted):  # CWD-1
    found = channel_wise_kl(row(1, 2, 4, 3), row(1, 2, 3, 4), tau)
    assert float(found) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(('tau', 'wanted'), [(1, 0.1308120), (2, 0.1453631), (4, 0.1494579)])
def test_two_places(tau, wanted):
    teacher = row(0, torch.tensor(3.0, dtype=torch.float64).log())
    assert float(channel_wise_kl(row(0, 0), teacher, tau)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ('tau', 'wanted'), [(1, 0.3700174), (2, 0.3916797), (4, 0.3980307), (1000, 0.4007131)]
)
def test_probe(tau, wanted):
    assert float(channel_wise_kl(S, T, tau)) == pytest.approx(wanted, abs=1e-6)
    torch.testing.assert_close(channel_wise_kl(S, T, tau), literal(S, T, tau))
    assert float(channel_wise_kl(S.float(), T.float(), tau)) == pytest.approx(wanted, rel=2e-2)


def test_infinite_temperature_is_half_the_mean_square_of_centred_maps():
    centred = [x - x.mean((2, 3), keepdim=True) for x in (S, T)]
    limit = 0.5 * (centred[0] - centred[1]).square().mean()
    assert float(limit) == pytest.approx(0.4007161, abs=1e-6)
    assert float(channel_wise_kl(S, T, 1e4)) == pytest.approx(float(limit), rel=1e-5)


def test_cwd_2_constants_and_joint_permutations_change_nothing_but_scale_does():  # CWD-2
    wanted = float(channel_wise_kl(S, T, 4.0))
    constants = torch.arange(6.0).double().view(2, 3, 1, 1)
    assert float(channel_wise_kl(S + constants, T - 7, 4.0)) == pytest.approx(wanted, abs=1e-12)
    order = torch.randperm(16)
    moved = [x.flatten(2)[:, :, order].view_as(x) for x in (S, T)]
    assert float(channel_wise_kl(*moved, 4.0)) == pytest.approx(wanted)
    assert float(channel_wise_kl(2 * S, T, 4.0)) == pytest.approx(0.9969759, abs=1e-6)
    assert float(channel_wise_kl(S, S, 4.0)) == pytest.approx(0, abs=1e-12)


def test_cwd_3_a_single_cell_and_constant_channels_teach_nothing():  # CWD-3
    s = S[:, :, :1, :1].clone().requires_grad_()
    loss = channel_wise_kl(s, T[:, :, :1, :1], 1.0)
    loss.backward()
    assert float(loss) == 0 and not s.grad.any()
    flat = torch.ones_like(S, requires_grad=True)
    channel_wise_kl(flat, torch.full_like(T, 3.0), 1.0).backward()
    assert flat.grad.abs().max() < 1e-12


@pytest.mark.parametrize('scale', [0.0, 1.0, 1e4])
def test_finite_for_any_size(scale):  # GEN-2
    s = (S.float() * scale).requires_grad_()
    loss = channel_wise_kl(s, T.float() * scale, 1.0)
    loss.backward()
    assert loss.isfinite() and s.grad.isfinite().all()


def test_gradient():
    s = S[:1, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: channel_wise_kl(x, T[:1, :2, :2], 2.0), s)


def test_ignored_cells_take_no_part():
    valid = LABELS != 255
    wanted = 0.0
    for n in range(2):
        for c in range(3):
            s, t = (x[n, c][valid[n]] for x in (S, T))
            wanted += float(channel_wise_kl(row(*s), row(*t), 2.0))
    assert float(channel_wise_kl(S, T, 2.0, valid)) == pytest.approx(wanted / 6)
    changed = S.clone()
    changed[0, :, 0, 0] = 99
    assert float(channel_wise_kl(changed, T, 2.0, valid)) == pytest.approx(wanted / 6)


def test_an_image_without_a_valid_cell_is_zero_with_a_gradient():
    labels = torch.full((2, 8, 8), 255)
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    trace = make_trace(
        {'logits': student}, {'logits': torch.randn(2, 3, 4, 4)}, label_maps(labels), stride=2
    )
    cwd = ready(CWD(student='logits', tau=1, mask_ignore=True), trace)
    loss = cwd(trace)['loss']
    loss.backward()
    assert float(loss) == 0 and not student.grad.any()
    labels[1] = 0
    both = make_trace(
        {'logits': student}, {'logits': torch.randn(2, 3, 4, 4)}, label_maps(labels), stride=2
    )
    assert float(cwd(both)['loss']) > 0


def test_levels_are_summed():
    student, teacher = ([torch.randn(2, 3, n, n) for n in (8, 4)] for _ in range(2))
    trace = make_trace({'neck': student}, {'neck': teacher})
    cwd = ready(CWD(student='neck', tau=1), trace)
    wanted = sum(literal(s, t, 1) for s, t in zip(student, teacher, strict=True))
    torch.testing.assert_close(cwd(trace)['loss'], wanted)


def test_attention_is_a_distribution_over_places():
    torch.testing.assert_close(channel_distribution(S, 2.0).sum((2, 3)), torch.ones(2, 3).double())


def test_defaults_follow_what_is_tapped():
    logits = prepare(CWD(), ToySegmentor(), ToySegmentor(6))
    assert (logits.tau, logits.weight.value) == (4, 3)
    assert [str(t) for t in logits.student_taps] == ['decode_head.conv_seg']
    features = prepare(CWD(student='decode_head.bottleneck'), ToySegmentor(), ToySegmentor(6))
    assert (features.tau, features.weight.value) == (4, 50)
    assert features.adapters['0'].conv.out_channels == 6
    pyramid = CWD()
    pyramid.bind(ToyNet(), ToyNet())
    assert (pyramid.tau, pyramid.weight.value) == (1, 10)
    mine = prepare(CWD(tau=2, weight=dict(stop=0.5)), ToySegmentor(), ToySegmentor())
    assert (mine.tau, mine.weight.value, mine.weight.stop) == (2, 3, 0.5)


@pytest.mark.parametrize('tau', [0, -1, float('nan'), float('inf'), '4'])
def test_temperatures_not_above_zero_are_refused(tau):
    with pytest.raises(ValueError, match='temperature tau must be'):
        CWD(tau=tau)


def test_unequal_classes_are_refused_at_build_for_logits_only():
    with pytest.raises(ValueError, match='the student has 3 classes and the teacher 5'):
        prepare(CWD(), ToySegmentor(num_classes=3), ToySegmentor(num_classes=5))
    prepare(
        CWD(student='decode_head.bottleneck'),
        ToySegmentor(num_classes=3),
        ToySegmentor(num_classes=5),
    )


def test_standardised_maps():  # RT-1, RT-3
    student, teacher = row(1, 2, 4, 3), row(1, 2, 3, 4)
    objective = CWD(standardise=True, tau=1.0)
    wanted = [-1.3416354, -0.4472118, 0.4472118, 1.3416354]
    found = batch_standardise(teacher).flatten().tolist()
    assert found == pytest.approx(wanted, abs=1e-7)
    loss = float(objective.compare(student, teacher))
    assert loss == pytest.approx(0.3215553, abs=1e-7)
    scaled = float(objective.compare(10 * student + 3, teacher))
    assert scaled == pytest.approx(0.3215565, abs=1e-7)
    assert float(CWD(tau=1.0).compare(student, teacher)) == pytest.approx(0.407031, abs=1e-6)
    assert float(objective.compare(torch.ones_like(student), teacher)) > 0


@pytest.mark.parametrize('standardise', [False, True])
def test_adapters_of_standardised_maps_have_no_bias(standardise):
    objective = CWD('neck', tau=1.0, standardise=standardise)
    maps = [torch.randn(2, c, 4, 4, requires_grad=c == 3) for c in (3, 5)]
    trace = make_trace(student={'neck': [maps[0]]}, teacher={'neck': [maps[1]]})
    ready(objective, trace)
    assert (objective.adapters['0'].conv.bias is None) == standardise
    assert objective(trace)['loss'].isfinite() and len(objective.views(trace)) == 4


def test_weight_and_temperature_of_standardised_maps():
    objective = CWD('neck', standardise=True)
    objective.bind(ToyNet(), ToyNet())
    assert objective.tau == 1 and float(objective.weight(0.0)) == 1
