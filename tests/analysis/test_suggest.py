"""``plan --step --suggest``: weights with which gradients have the share that was asked for."""

import pytest
import torch

from mmkd.analysis.suggest import Suggestion, report, suggest
from mmkd.objective import Objective
from mmkd.registry import MODELS
from mmkd.testing import class_labels, pixels


@MODELS.register_module(name='FourTimesTheTask')
class FourTimesTheTask(Objective):
    """Four times the student's own loss, or nothing at all."""

    taps = 'head.fc'
    needs_teacher = False
    needs_ground_truth = True

    def __init__(self, silent=False, **kwargs):
        super().__init__(**kwargs)
        self.silent = silent

    def forward(self, trace):
        logits = trace.student['head.fc'][0]
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(2))
        return (0 if self.silent else 4) * loss


def suggested(objectives, **options):
    data = dict(inputs=list(pixels()), data_samples=class_labels(torch.arange(2)))
    entries = {k: dict(type='FourTimesTheTask', **v) for k, v in objectives.items()}
    model = dict(type='mmkd.Distiller', student=dict(type='mmkd.ToyNet'), objectives=entries)
    return suggest(MODELS.build(model), [data, data], entries, **options)


def test_the_weight_of_a_known_ratio():
    """4 x weight 2 is 8 times the task's; a scheduled weight counts at its full value."""
    weights = dict(a=dict(weight=2.0), b=dict(weight=dict(value=0.5, warmup=0.5)))
    a, b = suggested(weights, share=0.4, batches=3)
    assert a.ratios == pytest.approx((8, 8, 8), rel=1e-4) and a.suggested == pytest.approx(0.1)
    assert b.ratios == pytest.approx((2, 2, 2), rel=1e-4) and b.suggested == pytest.approx(0.1)
    assert a.text() == (
        'a: gradient 8 x that of the task (8 to 8) with weight 2; for 0.4 x:  '
        'model.objectives.a.weight=0.1'
    )
    options = '--cfg-options model.objectives.a.weight=0.1 model.objectives.b.weight.value=0.1'
    assert report([a, b]).splitlines()[-1] == options


def test_with_that_weight_the_ratio_is_the_share():
    (one,) = suggested(dict(a=dict(weight=2.0)), share=0.3)
    (again,) = suggested(dict(a=dict(weight=one.suggested)), share=0.3)
    assert again.ratios == pytest.approx(len(again.ratios) * (0.3,), rel=1e-4)


def test_nothing_to_compare():
    (one,) = suggested(dict(a=dict(silent=True)))
    assert not one.ratios and 'no batch had a gradient' in report([one])
    assert report(suggested(dict(a=dict(weight=0)))) == 'no objective trains the student'
    assert Suggestion('a', 2.0, (1.0, 3.0, 2.0), 0.5, 'x').suggested == 0.5, 'the median counts'
