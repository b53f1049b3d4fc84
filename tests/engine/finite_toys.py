"""A Distiller whose terms break on demand, its optimiser, and the hook that watches both."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkd.distiller import Distiller
from mmkd.engine.finite_hook import FiniteHook
from mmkd.objective import Objective
from mmkd.testing import ToyNet, class_labels, pixels

SGD = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))


def fine(x):
    return x


def broken(x):
    """Zero, with the slope NaN."""
    return (x * 0).sqrt()


class Term(Objective):
    """Each call takes the next of ``changes``, the last one for ever."""

    taps = 'neck[0]'
    needs_teacher = False

    def __init__(self, *changes, **kwargs):
        super().__init__(**kwargs)
        self.changes = list(changes)

    def forward(self, trace):
        change = self.changes.pop(0) if len(self.changes) > 1 else self.changes[0]
        return change(trace.student['neck[0]'][0].square().mean())


class Critic(Term):
    """Learns a factor with an optimiser of its own."""

    own_losses = ('loss_critic',)

    def __init__(self, *changes):
        super().__init__(*changes)
        self.optimizer = dict(type='SGD', lr=0.1)
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, trace):
        x = trace.student['neck[0]'][0].detach().mean()
        return dict(loss_critic=self.changes[0]((self.factor * x).square().mean()))


class Run:
    """A Distiller, its optimiser, and the hook that watches them."""

    def __init__(self, objectives, student=None, teacher=None, wrapper=SGD, preflight=False):
        torch.manual_seed(0)
        self.model = Distiller(student or ToyNet(), objectives, teacher, preflight=preflight)
        self.optim_wrapper = build_optim_wrapper(self.model, copy.deepcopy(wrapper))
        self.hook = FiniteHook()

    def start(self):
        self.hook.before_train(self)
        return self

    def step(self, data=None):
        inputs, samples = data or (pixels(2, (32, 32)), class_labels(torch.arange(2)))
        losses = self.model.loss(inputs, samples)
        self.optim_wrapper.update_params(self.model.parse_losses(losses)[0])

    def stops(self, message, data=None):
        before = copy.deepcopy(self.model.state_dict())
        with pytest.raises(FloatingPointError, match=message) as found:
            self.step(data)
        after = self.model.state_dict()
        assert all(torch.equal(after[k], before[k]) for k in before)
        return str(found.value)
