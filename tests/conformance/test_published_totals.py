"""Weight times loss with all defaults: each default weight belongs to its own divisor."""

import pytest
import torch
from logit_toys import ZS, ZT, Y
from map_toys import FS, FS2, FT, FT2
from row_toys import A, B
from segmentation_toys import ToyClassifier
from torch import nn

from mmkd import methods
from mmkd.adapters import ConvAdapter
from mmkd.schedule import Progress
from mmkd.testing import class_labels, make_trace, ready

RS, RT = torch.tensor([[0.0, 0], [3, 4], [6, 8]]), torch.tensor([[0.0, 0], [1, 0], [0, 1]])


def total(objective, student, teacher):
    """Weighted sum of the losses at taps 'a', 'b', …, every adapter an identity."""
    objective.bind(ToyClassifier(), ToyClassifier())
    sides = [
        dict(zip((str(tap) for tap in taps), side, strict=True))
        for taps, side in ((objective.student_taps, student), (objective.teacher_taps, teacher))
    ]
    trace = make_trace(*sides, samples=class_labels(Y[: len(student[0])]))
    ready(objective, trace)
    for adapter in objective.modules():
        if isinstance(adapter, ConvAdapter):
            nn.init.dirac_(adapter.conv.weight)
            adapter.norm = nn.Identity()
    losses = objective(trace)
    weight = objective.weight(Progress(0, 10))
    return weight * float(sum(v.detach() for k, v in losses.items() if k.startswith('loss')))


@pytest.mark.parametrize(
    ('name', 'options', 'student', 'teacher', 'wanted'),
    [
        ('KD', {}, [ZS], [ZT], 0.4445310),
        ('ESKD', {}, [ZS], [ZT], 0.4445310),
        ('L2Logit', {}, [ZS], [ZT], 0.1 * 7 / 6),
        ('DKD', {}, [ZS], [ZT], 3.6271455),
        ('LogitStandardization', {}, [ZS], [ZT], 9 * 0.1794363),
        ('WSLD', {}, [ZS], [ZT], 2.5 * 3.5373551),
        ('DIST', {}, [ZS], [ZT], 2 * (4.388488 + 4.234581)),
        ('FitNet', dict(student='a'), [FS], [FT], 100 * 1.5625),
        ('AT', dict(student='a'), [FS], [FT], 1000 * 0.0700011),
        ('NST', dict(student='a'), [FS], [FT], 50 * 1.3074283),
        ('FSP', dict(student=['a', 'b']), [FS, FS2], [FT, FT2], 50 * 0.2044678),
        ('AB', dict(student='a'), [FS], [FT], 0.055875),
        ('RKD', dict(student='a'), [RS], [RT], 8.2739600),
        ('SP', dict(student='a'), [A], [B], 3000 * 0.1509732),
        ('PKT', dict(student='a'), [A], [B], 30000 * 0.0150384),
        ('GKD', dict(student='a'), [A], [B], 25 * 2.0),
        ('InformationFlow', dict(student='a'), [A], [B], 0.0452683),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_total(name, options, student, teacher, wanted):
    found = total(getattr(methods, name)(**options), student, teacher)
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5)
