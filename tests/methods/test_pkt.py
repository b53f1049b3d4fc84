"""PKT: neighbour probabilities against loops, with and without the diagonal."""

import itertools
import math

import pytest
import torch
from row_toys import A, B, cosine, random_rows, slow_probabilities, value

from mmkd.methods.pkt import PKT, neighbour_probabilities, transfer_error


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (transfer_error(A, B), 0.0150384),
        (3 * transfer_error(A, B), 0.0451152),
        (3 * transfer_error(A, B, False), 0.0698459),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_transcription():
    s, t = random_rows()
    pairs = list(itertools.product(range(len(s)), repeat=2))
    p, q = (slow_probabilities(x, cosine) for x in (t, s))
    wanted = sum(p[i][j] * math.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i, j in pairs)
    assert float(transfer_error(s, t)) == pytest.approx(wanted / len(pairs))
    torch.testing.assert_close(neighbour_probabilities(s).sum(1), torch.ones(len(s)).double())
    assert not neighbour_probabilities(s, False).diagonal().any()


def test_without_the_diagonal():
    s, t = random_rows(b=6)
    assert value(PKT('x', variant='paper'), s, t) == pytest.approx(
        float(transfer_error(s, t, False)), rel=1e-4
    )
