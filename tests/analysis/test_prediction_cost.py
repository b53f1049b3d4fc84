"""Costs of predicting the first test image, and the sentences about them."""

import math

import pytest

from mmkd.analysis import prediction_cost
from mmkd.analysis.prediction_cost import PredictionCosts
from mmkd.teacher import build_model
from mmkd.testing import classification_batch, tiny_classifier


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    def latencies(runs):
        return {name: 0.25 for name, run in runs.items() if run()}, 25

    monkeypatch.setattr(prediction_cost, 'latencies', latencies)


def items(size):
    """A dataset of images of one size, as a pipeline returns them."""
    inputs, samples = classification_batch(n=2, size=size)
    return [dict(inputs=x, data_samples=s) for x, s in zip(inputs, samples, strict=True)]


def test_units_and_notes():
    model, costs = build_model(tiny_classifier()).eval(), PredictionCosts()
    costs.add('student', model, items((32, 48)))
    costs.add('small', model, items((32, 24)))
    found, half = costs.measure().values()
    count = sum(p.numel() for p in model.parameters())
    assert found['parameters (M)'] == count / 1e6 and found['latency (ms)'] == 250
    assert half['MACs (G)'] == pytest.approx(found['MACs (G)'] / 2, rel=0.01)
    one, macs, latency = costs.notes()
    assert '(in pixels student: 32 x 48; small: 32 x 24)' in one
    assert macs.startswith('MACs: convolutions, matrix products and attention; not counted: ')
    assert latency.startswith('Latency: median of 25 in turn, batch 1, on ')


def test_a_model_that_cannot_be_counted_keeps_its_scores(monkeypatch):
    def fail(*args):
        raise RuntimeError('no such operator\nmore')

    monkeypatch.setattr(prediction_cost, 'complexity', fail)
    model, costs = build_model(tiny_classifier()).eval(), PredictionCosts()
    costs.add('student', model, items((32, 32)))
    found = costs.measure()['student']
    assert math.isnan(found['MACs (G)']) and found['parameters (M)'] > 0
    assert costs.notes()[-1] == 'MACs of student could not be counted: no such operator.'


def test_nothing_measured_nothing_said():
    assert PredictionCosts().notes() == []
