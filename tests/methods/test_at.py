"""AT against worked numbers and a transcription of the equation."""

import copy

import pytest
import torch
from segmentation_toys import ToyClassifier, ToySegmentor, make_step, prepare, probe_tensors
from torch.nn import functional as F

from mmkd.methods.at import AT, attention_distance, attention_map
from mmkd.testing import make_trace, ready

S, T, _ = probe_tensors()


def fixture():
    i = torch.arange(16, dtype=torch.float64)
    return ((i - 7) / 4).view(2, 2, 2, 2), ((5 * i % 9 - 4) / 4).view(2, 2, 2, 2)


@pytest.mark.parametrize(
    ('pair', 'variant', 'wanted'),
    [
        ((S, T), 'code', 0.0193261),
        ((S, T), 'sum', 0.3092178),
        (fixture(), 'code', 0.0700011),
        (fixture(), 'paper', 0.5276086),
    ],
)
def test_worked_numbers(pair, variant, wanted):
    assert float(attention_distance(*pair, variant=variant)) == pytest.approx(wanted, abs=1e-6)
    found = attention_distance(*(x.float() for x in pair), variant=variant)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_the_length_has_a_norm():
    """Summaries of the paper print ||.||_p, with the p of the activations."""
    difference = attention_map(S) - attention_map(T)
    for norm in (1, 2, 3):
        wanted = (difference.abs() ** norm).sum(1) ** (1 / norm)
        found = attention_distance(S, T, variant='paper', norm=norm)
        torch.testing.assert_close(found, wanted.mean())
    with pytest.raises(ValueError, match="norm=1 is that of a length, which variant='paper' takes"):
        AT(norm=1)
    assert AT(variant='paper', norm=1).norm == 1


def test_two_places():
    s, t = (torch.tensor(e).sqrt().view(1, 1, 1, 2) for e in ([1.0, 1.0], [3.0, 4.0]))
    assert float(attention_distance(s, t)) == pytest.approx(0.0100505, rel=1e-4)


@pytest.mark.parametrize('p', [1, 2, 3])
def test_transcription(p):
    rows = []
    for x in (S, T):
        energy = sum(x[:, c].abs() ** p for c in range(3)).flatten(1)
        rows.append(energy / (energy**2).sum(1, keepdim=True) ** 0.5)
    difference = rows[0] - rows[1]
    wanted = {
        'code': difference.pow(2).mean(),
        'sum': difference.pow(2).sum(1).mean(),
        'paper': difference.pow(2).sum(1).sqrt().mean(),
    }
    for variant, value in wanted.items():
        torch.testing.assert_close(attention_distance(S, T, p, variant), value)
        s = S[:1].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, v=variant: attention_distance(x, T[:1], 2, v), s)


def test_invariances():
    wanted = float(attention_distance(S, T))
    image = torch.tensor([0.5, 3.0]).double().view(2, 1, 1, 1)
    assert float(attention_distance(S * image, T)) == pytest.approx(wanted)
    assert float(attention_distance(torch.cat((S, S.flip(1)), 1), T)) == pytest.approx(wanted)
    assert float(attention_distance(S, T[:, [2, 0, 1]])) == pytest.approx(wanted)
    assert float(attention_distance(S.flip(3), T)) != pytest.approx(wanted)
    assert attention_distance(S[:, :, :1, :1], T[:, :, :1, :1]) == 0
    assert attention_distance(S, T, variant='sum') <= 2


@pytest.mark.parametrize('variant', ['code', 'sum', 'paper'])
@pytest.mark.parametrize('p', [1, 2, 3])
def test_finite_at_equality_zero_and_huge(variant, p):
    for s in (T, torch.zeros_like(T), torch.full_like(T, 1e4)):
        s = s.float().requires_grad_()
        loss = attention_distance(s, T.float(), p, variant)
        loss.backward()
        assert loss.isfinite() and s.grad.isfinite().all()
    assert attention_map(torch.zeros(1, 2, 3, 3)).sum() == 0


def test_defaults_follow_the_family():
    segmentor = prepare(AT(), ToySegmentor(4), ToySegmentor(6))
    assert (segmentor.variant, float(str(segmentor.weight))) == ('code', 10000)
    assert str(segmentor.student_taps[0]) == 'decode_head.dropout@in[0]'
    classifier = prepare(AT(), ToyClassifier(), ToyClassifier())
    assert (classifier.variant, float(str(classifier.weight))) == ('code', 1000)
    assert str(classifier.student_taps[0]) == 'backbone'
    paper = prepare(AT(variant='paper', weight=7), ToySegmentor(), ToySegmentor())
    assert (paper.variant, float(str(paper.weight))) == ('paper', 7)
    detector = ToySegmentor()
    detector.roi_head = detector.decode_head
    detector.neck = detector.backbone
    objective = AT()
    objective.bind(detector, detector)
    assert (objective.variant, float(str(objective.weight))) == ('sum', 1)
    assert str(objective.student_taps[0]) == 'neck'


def test_objective():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(AT(p=1, variant='sum'), student, teacher)
    trace = make_step(objective, student, teacher)
    s, t = objective.maps(trace)[0]
    loss = objective(trace)['loss']
    torch.testing.assert_close(loss, attention_distance(s, t, 1, 'sum'))
    loss.backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    assert len(objective.views(trace)) == 2
    twin = copy.deepcopy(student.eval())
    objective = prepare(AT(), student, twin)
    assert float(objective(make_step(objective, student, twin))['loss']) == 0


@pytest.mark.parametrize('variant', ['code', 'sum', 'paper'])
def test_mask_leaves_cells_out(variant):
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    labels = torch.zeros(2, 32, 48, dtype=torch.long)
    labels[:, :, :16] = 255  # the first two columns of the map
    objective = prepare(AT(variant=variant, mask_ignore=True), student, teacher)
    trace = make_step(objective, student, teacher, labels=labels)
    s, t = (x[:, :, :, 2:] for x in objective.maps(trace)[0])
    torch.testing.assert_close(objective(trace)['loss'], attention_distance(s, t, 2, variant))
    plain = prepare(AT(variant=variant), student, teacher)(trace)['loss']
    assert float(plain.detach()) != pytest.approx(float(objective(trace)['loss'].detach()))
    for sample in trace.samples:
        sample.gt_sem_seg.data.fill_(255)
    assert float(objective(trace)['loss'].detach()) == 0


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: AT(p=0), 'exponent p must be'),
        (lambda: AT(variant='mean'), 'variant must be one of'),
        (
            lambda: prepare(AT(student='head.fc'), ToyClassifier(), ToyClassifier()),
            "'head.fc' gives 3",
        ),
        (
            lambda: prepare(AT(), ToySegmentor(stride=256), ToySegmentor(stride=256)),
            'more than one cell',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_maximum_over_channels():
    """F_max^p: a place is as active as its strongest channel."""
    x = torch.tensor([[[[1.0, -3.0]], [[2.0, 0.0]]]])
    torch.testing.assert_close(
        attention_map(x, channels='max')[0], torch.tensor([4.0, 9.0]) / 97**0.5
    )
    y = torch.rand(1, 2, 1, 2)
    largest = attention_distance(x, y, channels='max')
    wanted = (attention_map(x, channels='max') - attention_map(y, channels='max')).square().mean()
    torch.testing.assert_close(largest, wanted)
    assert largest != attention_distance(x, y)
    with pytest.raises(ValueError, match='AT: channels must be one of'):
        AT(channels='mean')


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_attention_of_a_map_four_times_as_large(side):
    """AT compares the average over the cells, not one cell in four a direction."""
    torch.manual_seed(0)
    large, small = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 8, 8)
    maps = {'student': small, 'teacher': large} if side == 'teacher' else {}
    maps = maps or {'student': large, 'teacher': small}
    smaller = 'teacher' if side == 'student' else 'student'
    objective = AT('x', resize=smaller, variant='code', weight=1)
    trace = make_trace({'x': maps['student']}, {'x': maps['teacher']})
    found = ready(objective, trace)(trace)['loss']
    averaged = attention_distance(F.avg_pool2d(large, 4), small)
    torch.testing.assert_close(found, averaged)
    thinned = F.interpolate(large, (8, 8), mode='bilinear')
    assert abs(attention_distance(thinned, small) / averaged - 1) > 0.05
