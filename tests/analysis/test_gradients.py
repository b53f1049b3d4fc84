"""Ratios and angles of gradients, against terms whose gradient is known."""

import pytest
import torch
from mmengine.config import Config
from torch.nn import functional as F

from mmkd.analysis.gradients import TermGradient, compare, measure_gradients, report
from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.testing import ToyNet, class_labels, pixels


class TaskAgain(Objective):
    """``factor`` times the student's own loss, and one more head-only term."""

    taps = 'head'
    needs_teacher = False

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def forward(self, trace):
        logits = trace.student['head'][0]
        return dict(loss_same=self.factor * F.cross_entropy(logits, torch.arange(2)))


def terms_of(factor, **options):
    torch.manual_seed(0)
    model = Distiller(ToyNet(), dict(again=TaskAgain(factor)), preflight=False, **options)
    data = dict(inputs=pixels(), data_samples=class_labels(torch.arange(2)))
    return {key: rest for key, *rest in compare(model, data)}


@pytest.mark.parametrize('factor', [0.5, 3.0])
def test_a_multiple_of_the_task_has_that_ratio_and_no_angle(factor):
    ((key, (value, ratio, cosine)),) = terms_of(factor).items()
    assert key == 'kd.again.loss_same'
    assert ratio == pytest.approx(factor, rel=1e-5)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert value > 0


def test_a_term_against_the_task_has_a_negative_cosine():
    ((value, ratio, cosine),) = terms_of(-2.0).values()
    assert (ratio, cosine) == (pytest.approx(2, rel=1e-5), pytest.approx(-1, abs=1e-5))
    assert value < 0


def test_task_weight_counts():
    ((_, ratio, _),) = terms_of(1.0, task_weight=0.5).values()
    assert ratio == pytest.approx(2, rel=1e-5)


def test_what_an_objective_itself_learns_by_is_left_out():
    class Apart(TaskAgain):
        own_losses = ('loss_own',)

        def forward(self, trace):
            return super().forward(trace) | dict(loss_own=torch.ones(1, requires_grad=True).sum())

    model = Distiller(ToyNet(), dict(apart=Apart(1.0)), preflight=False)
    data = dict(inputs=pixels(), data_samples=class_labels(torch.arange(2)))
    assert [key for key, *_ in compare(model, data)] == ['kd.apart.loss_same']


def test_report():
    table = report({'kd.a.loss': TermGradient([1.0, 3.0], [0.5, 0.7, 0.1], [-0.25, 0.75])})
    assert table.splitlines()[2] == '| kd.a.loss | 2 | 0.500 (0.100 to 0.700) | +0.25 |'
    weak = report({'kd.a.loss': TermGradient([1.0], [0.00022], [0.5])})
    assert '| 0.000220 (0.000220 to 0.000220) |' in weak


def test_what_is_refused():
    with pytest.raises(ValueError, match='distillation config'):
        measure_gradients(Config(dict(model=dict(type='mmkd.ToyNet'))))
    with pytest.raises(ValueError, match='at least one batch'):
        measure_gradients(Config(dict(model=dict(type='mmkd.Distiller'))), batches=0)
