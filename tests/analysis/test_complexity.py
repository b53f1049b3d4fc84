"""What a prediction costs, against counts by hand and mmengine's own."""

import functools
import re

import pytest
import torch
from mmcv.ops import RoIAlign
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmkd.analysis import complexity as module
from mmkd.analysis.complexity import complexity, device_name, latencies
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_faster_rcnn, tiny_retinanet


def macs(model, *inputs):
    return complexity(model, lambda: model(*inputs)).macs


def test_convolutions_and_matrix_products_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(8 * 6 * 5, 4))
    found = complexity(model, lambda: model(torch.zeros(1, 3, 6, 5)))
    assert found.macs == 6 * 5 * 8 * 3 * 9 + 8 * 6 * 5 * 4
    assert found.parameters == 8 * 3 * 9 + 8 * 6 * 5 * 4 + 4
    assert found.left_out == ()


def test_attention_counts_in_whatever_kernel_it_runs():
    """PyTorch's counter gives 0 for the fused ones of a CPU."""
    x = torch.zeros(1, 50, 32)
    products = 2 * 50 * 50 * 32
    layer = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    assert macs(layer, x, x, x) == 4 * 50 * 32 * 32 + products
    query = x.view(1, 4, 50, 8)

    class Fused(nn.Module):
        forward = staticmethod(nn.functional.scaled_dot_product_attention)

    assert macs(Fused(), query, query, query) == products
    assert torch.backends.mha.get_fastpath_enabled()


class Aligned(RoIAlign):
    """Computed by PyTorch, which its own counter would see, with a layer inside."""

    def __init__(self):
        super().__init__(2, 1.0)
        self.part = nn.Linear(16, 4, bias=False)

    def forward(self, x):
        return self.part(x) @ torch.zeros(4, 16)


def test_the_own_work_of_mmcv_operators_is_named_and_left_out():
    """However it is computed, so that the number does not depend on how mmcv was built."""
    model = nn.Sequential(Aligned(), nn.Linear(16, 3, bias=False))
    found = complexity(model, lambda: model(torch.zeros(1, 16)))
    assert found.left_out == ('Aligned',)
    assert found.macs == 16 * 4 + 16 * 3
    assert not model[0]._forward_hooks


def test_a_detector_counts_as_in_mmengine():
    """Which also counts normalisation and resizing, and follows a trace."""
    model = build_model(tiny_retinanet()).eval()
    inputs, samples = detection_batch(n=1)
    found = complexity(model, lambda: model(inputs, samples, mode='tensor'))
    model.forward = functools.partial(model.forward, data_samples=samples)
    counter = FlopAnalyzer(model, (inputs,)).unsupported_ops_warnings(False)
    assert found.macs == counter.uncalled_modules_warnings(False).by_operator()['conv']
    assert found.left_out == ()


def test_a_detector_costs_the_same_with_compiled_operators_and_without():
    """As mmengine counts it beside a compiled RoIAlign, which it does not see."""
    model = build_model(tiny_faster_rcnn()).eval()
    inputs, samples = detection_batch(n=1)
    found = complexity(model, lambda: model(inputs, samples, mode='tensor'))
    assert found.macs == 7_620_096 + 229_376  # convolutions and linear layers
    assert found.left_out == ('RoIAlign',)


class Queries(nn.Module):
    """A layer on one half of a parameter, as Deformable DETR has for its queries."""

    def __init__(self):
        super().__init__()
        self.queries, self.layer = nn.Parameter(torch.ones(4, 6)), nn.Linear(3, 2)

    def forward(self):
        return self.layer(self.queries.split(3, 1)[0])


def test_a_part_of_a_parameter_may_be_the_input_of_a_layer():
    model = Queries()
    assert complexity(model, model).macs == 4 * 3 * 2
    assert all(parameter.requires_grad for parameter in model.parameters())


class Clock:
    """Of a machine that slows down: each call takes a tenth of a second more than the last."""

    def __init__(self, monkeypatch, step):
        self.now, self.took, self.step = 0.0, 0.0, step
        monkeypatch.setattr(module, '_now', lambda: self.now)

    def call(self):
        assert not torch.is_grad_enabled()
        self.took += self.step
        self.now += self.took


def test_latencies_are_medians_of_calls_in_turn_after_a_warm_up(monkeypatch):
    clock, calls = Clock(monkeypatch, 0.1), []
    runs = {name: lambda name=name: (calls.append(name), clock.call()) for name in 'ab'}
    found, rounds = latencies(runs)
    assert ''.join(calls) == 'ab' * 12 and rounds == 10
    assert found == pytest.approx(dict(a=1.4, b=1.5))  # of 0.5, 0.7, … and 0.6, 0.8, …


@pytest.mark.parametrize(('seconds', 'rounds'), [(0.06, 48), (0.001, 100)])
def test_short_calls_are_repeated(monkeypatch, seconds, rounds):
    clock = Clock(monkeypatch, 0.0)
    clock.took = seconds
    assert latencies(dict(a=clock.call)) == (pytest.approx(dict(a=seconds)), rounds)


def test_a_cpu_is_named_with_its_threads(monkeypatch):
    monkeypatch.setattr(module.torch, 'get_num_threads', lambda: 7)
    assert re.fullmatch(r'.+, 7 threads', device_name(torch.device('cpu')))
