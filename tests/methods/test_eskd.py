"""ESKD: KD and its end."""

import pytest
from logit_toys import images

from mmkd.methods.eskd import ESKD
from mmkd.schedule import Progress


def test_is_kd_until_it_stops():
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
