"""Random states, modes and buffers are what they were."""

import random
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from mmkd.untouched import (
    at_rest,
    buffers_aside,
    buffers_kept,
    evaluation,
    flags_kept,
    training,
    untouched_random_state,
)


def drawn():
    return random.random(), np.random.rand(), torch.rand(()).item()


@pytest.mark.parametrize('fails', [False, True])
def test_random_streams_go_on_as_if_nothing_had_been_drawn(fails):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    wanted = [drawn(), drawn()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    found = [drawn()]
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), untouched_random_state():
        drawn(), torch.manual_seed(7)
        assert not fails or 1 / 0
    found.append(drawn())
    assert found == wanted


def test_of_several_gpus_the_own_one_is_meant(monkeypatch):
    looked_at = []
    monkeypatch.setattr(torch.random, '_fork_rng_warned_already', False)
    for name, value in dict(
        device_count=lambda: 4,
        current_device=lambda: 2,
        get_rng_state=lambda device: looked_at.append(device) or 'state',
        set_rng_state=lambda state, device: looked_at.append(device),
    ).items():
        monkeypatch.setattr(torch.cuda, name, value)
    with warnings.catch_warnings(action='error'), untouched_random_state():
        pass
    assert looked_at == [2, 2]


@pytest.fixture
def model():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.BatchNorm2d(2))
    net.train()
    net[2].eval()  # a frozen norm
    return net


FLAGS = [True, True, True, False]


def flags(model):
    return [m.training for m in model.modules()]


@pytest.mark.parametrize('mode', [evaluation, training, flags_kept])
def test_every_module_gets_its_own_flag_back(model, mode):
    with pytest.raises(ZeroDivisionError), mode(model):
        model.train(not model.training)
        1 / 0  # noqa: B018
    assert flags(model) == FLAGS


def test_modes_meanwhile(model):
    with evaluation(model):
        assert flags(model) == [False] * 4
    with training(model):
        assert flags(model) == [True, False, True, False], 'BatchNorms take one image, too'


def test_buffers_come_back_whatever_is_done_to_them(model):
    mean = model[0].running_mean
    before = mean.clone()
    with training(model):
        model[0].running_mean += 3
        model[2].running_var = torch.zeros(2)
    assert model[0].running_mean is mean and torch.equal(mean, before)
    assert torch.equal(model[2].running_var, torch.ones(2))


def test_at_rest_nothing_moves(model):
    """Neither statistics nor flags, and there is no gradient."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with at_rest(model):
        assert flags(model) == [False] * 4 and not torch.is_grad_enabled()
        model(torch.rand(2, 2, 8, 8))
    assert flags(model) == FLAGS and torch.is_grad_enabled()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_statistics_are_taken_back(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with buffers_kept(model):
        model(torch.rand(2, 2, 8, 8))
        assert not torch.equal(model[0].running_mean, before['0.running_mean'])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_second_run_does_not_disturb_the_graph_of_the_first(model):
    """Statistics of BatchNorms are part of it, so that they are not written to in place."""
    x = torch.randn(4, 2, 3, 3)
    before = [b.clone() for b in model.buffers()]
    with buffers_aside(model):
        loss = model(x).square().sum()
    assert all(map(torch.equal, model.buffers(), before))
    model(x)
    loss.backward()
    assert model[0].weight.grad.isfinite().all()
