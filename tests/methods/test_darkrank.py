"""DarkRank: rankings against enumeration, embeddings as they are, and gradients in float32."""

import itertools
import math

import pytest
import torch
from row_toys import random_rows, value

from mmkd.functional.relations import distances, unit
from mmkd.methods.darkrank import DarkRank, log_likelihood, ranking_error
from mmkd.testing import make_trace, ready


def test_embeddings_as_they_are():
    torch.manual_seed(0)
    student, teacher = torch.rand(5, 3), torch.rand(5, 4)
    trace = make_trace({'x': student}, {'x': teacher})
    found = ready(DarkRank('x', normalize=False), trace)(trace)['loss']
    wanted = ranking_error(distances(student), distances(teacher))
    assert float(found) == pytest.approx(float(wanted))
    assert float(ready(DarkRank('x'), trace)(trace)['loss']) != pytest.approx(float(wanted))


@pytest.mark.parametrize('scale', [1.0, 30.0, 200.0])
def test_gradient_in_float32(scale):
    """That of the slow formula in float64, as far as the scores themselves are exact."""
    torch.manual_seed(0)
    scores = -scale * torch.rand(8, 60)
    given = scores.clone().requires_grad_()
    log_likelihood(given).sum().backward()
    exact = scores.double().requires_grad_()
    rest = [exact[:, i:].logsumexp(1) for i in range(60)]
    (exact - torch.stack(rest, 1)).sum().backward()
    assert given.grad.dtype is torch.float32
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=1e-6, atol=1e-6)


KS = torch.tensor([[0, 0], [1, 0], [0, 0.5], [0.6, 0.6]], dtype=torch.float64)
KT = torch.tensor([[0, 0], [0.4, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (ranking_error(distances(KS), distances(KT), 'hard', length=3), 2.5248534),
        (ranking_error(distances(KS), distances(KT), 'soft', length=3), 1.2378160),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_enumeration():
    s, t = distances(KS), distances(KT)

    def probability(x, order, query):
        scores = [-3 * float(x[query, i]) ** 3 for i in order]
        value = 1.0
        for k in range(len(scores)):
            value *= math.exp(scores[k]) / sum(math.exp(score) for score in scores[k:])
        return value

    hard, soft, cross = [], [], []
    for query in range(4):
        others = [i for i in range(4) if i != query]
        order = sorted(others, key=lambda i, q=query: float(t[q, i]))
        hard.append(-math.log(probability(s, order, query)))
        lists = list(itertools.permutations(order))
        p_t, p_s = ([probability(x, ranks, query) for ranks in lists] for x in (t, s))
        assert sum(p_t) == pytest.approx(1) and sum(p_s) == pytest.approx(1)
        soft.append(sum(p * math.log(p / q) for p, q in zip(p_t, p_s, strict=True)))
        cross.append(-sum(p * math.log(q) for p, q in zip(p_t, p_s, strict=True)))
    assert hard[0] == pytest.approx(4.558405, abs=1e-6)
    assert sum(cross) / 4 == pytest.approx(2.450620, abs=1e-6)
    assert float(ranking_error(s, t, 'hard', length=3)) == pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', length=None)) == pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'soft', length=3)) == pytest.approx(sum(soft) / 4)
    assert float(ranking_error(s, t, 'hard', length=2)) != pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', 1.0)) != pytest.approx(sum(hard) / 4)
    assert float(ranking_error(s, t, 'hard', beta=2.0)) != pytest.approx(sum(hard) / 4)


def test_hard_asks_the_teacher_for_nothing_but_order():
    s, t = distances(KS), distances(KT)
    assert torch.equal(ranking_error(s, t), ranking_error(s, t.square()))
    assert not torch.equal(ranking_error(s, t, 'soft'), ranking_error(s, t.square(), 'soft'))
    twins = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 1]])  # one image twice, itself never
    alike = ranking_error(distances(twins), distances(twins), length=1)
    assert float(alike) == 0 and float(log_likelihood(torch.zeros(24))) == pytest.approx(
        -math.lgamma(25)
    )


def test_options_of_the_ranking():
    s, t = random_rows(b=6)
    d_s, d_t = distances(unit(s)), distances(unit(t))
    for options in (dict(transfer='soft', length=3), dict(alpha=2.0, beta=2.0, length=None)):
        assert value(DarkRank('x', **options), s, t) == pytest.approx(
            float(ranking_error(d_s, d_t, **options)), rel=1e-4
        )


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: DarkRank(transfer='list'), 'transfer must be one of'),
        (
            lambda: DarkRank(length=1),
            'length must be a whole number of at least 2, or None, found 1',
        ),
        (lambda: DarkRank(transfer='soft', length=7), 'from 2 to 6, found 7'),
        (lambda: DarkRank(transfer='soft', length=None), 'from 2 to 6, found None'),
        (lambda: DarkRank(beta=0.5), 'beta must be .* at least 1'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
