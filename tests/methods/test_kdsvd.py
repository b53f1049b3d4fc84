"""KDSVD: singular vectors against LAPACK."""

import math

import pytest
import torch
from map_toys import FS, FS2, FT, FT2, on_maps

from mmkd.methods.kdsvd import KDSVD, correlation, singular_distance


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
def test_transcription(spare):
    found = float(singular_distance((FS, FS2), (FT, FT2), spare=spare))
    assert found == pytest.approx(literal_singular_distance(spare), abs=1e-7)
    scaled = float(singular_distance((3 * FS, -FS2), (FT, FT2), spare=spare))
    assert scaled == pytest.approx(found), 'neither scale nor sign matters'
    assert float(singular_distance((FT, FT2), (FT, FT2), spare=spare)) == pytest.approx(
        0, abs=1e-12
    )
    assert correlation(torch.zeros(2, 3, 1), torch.zeros(2, 5, 1)).shape == (2, 5, 3, 1)


def test_has_one_of_the_values_that_signs_allow():
    found = float(singular_distance((FS, FS2), (FT, FT2), spare=1))
    assert min(abs(found - v) for v in (0.02219, 0.02361, 0.02452, 0.02595)) < 1e-5


def test_survives_repeated_singular_values():
    same = torch.eye(4).view(1, 4, 2, 2).requires_grad_()
    other = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    singular_distance((same, same), (other, -other)).backward()
    assert same.grad.isfinite().all()
    found = on_maps(KDSVD(['a', 'b']), [FS, FS2], [torch.cat((FT, FT), 1), FT2])
    assert float(found['loss'].detach()) > 0
    with pytest.raises(ValueError, match='count must be'):
        KDSVD(count=0)
