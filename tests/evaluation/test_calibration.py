"""Calibration against sums by hand."""

import math

import pytest
import torch
from mmengine.evaluator import Evaluator

from mmkd.evaluation import Calibration
from mmkd.evaluation.calibration import expected_error
from mmkd.registry import METRICS
from mmkd.structures import ClassSample


def evaluate(metric, scores, labels, logits=None):
    evaluator = Evaluator(metric)
    for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
        logit = None if logits is None else torch.tensor(logits[i])
        sample = ClassSample().set_gt_label(label).set_prediction(torch.tensor(score), logit)
        evaluator.process([sample])
    return evaluator.evaluate(len(scores))


def test_the_error_is_the_gap_of_each_bin():
    """Bins (0, .5], (.5, 1]: 1/4 |0 - .5| + 3/4 |2/3 - (.6 + .9 + .9) / 3|."""
    confidence = torch.tensor([0.5, 0.6, 0.9, 0.9])
    right = torch.tensor([False, True, True, False])
    assert expected_error(confidence, right, 2) == pytest.approx(0.125 + 0.75 * (0.8 - 2 / 3))
    assert expected_error(torch.ones(3), torch.ones(3), 15) == 0
    assert expected_error(torch.zeros(1), torch.zeros(1), 15) == 0


def test_means_over_images():
    scores, labels = [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], [0, 1, 1]
    found = evaluate(METRICS.build(dict(type='mmkd.Calibration', bins=1)), scores, labels)
    assert found['ece'] == pytest.approx(100 * abs(2 / 3 - 0.7), abs=1e-4)
    assert found['nll'] == pytest.approx(-math.log(0.8 * 0.6 * 0.3) / 3, abs=1e-6)
    assert found['brier'] == pytest.approx((0.08 + 0.32 + 0.98) / 3, abs=1e-6)


def test_logits_do_not_underflow():
    found = evaluate(Calibration(), [[1.0, 0.0]], [1], [[200.0, 0.0]])
    assert found['nll'] == pytest.approx(200)
    assert evaluate(Calibration(), [[1.0, 0.0]], [1])['nll'] == pytest.approx(-math.log(1e-12))


def test_uncertainties_of_a_dirichlet_distribution():
    """[V] procedures B5."""
    logit = torch.tensor([5.0, 2, 1]).log().tolist()
    found = evaluate(Calibration(dirichlet=True), [[0.625, 0.25, 0.125]], [0], [logit])
    wanted = dict(total=0.9003, data=0.7908, knowledge=0.1095)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(ValueError, match='needs the logits of each prediction'):
        evaluate(Calibration(dirichlet=True), [[0.5, 0.5]], [0])


def test_bad_options():
    with pytest.raises(ValueError, match='Calibration.*bins'):
        Calibration(bins=0)
