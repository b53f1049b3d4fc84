"""What does not train carries no gradient."""

import copy

import pytest
import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.plan.freezing import freeze
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier, tiny_retinanet
from mmkd.trains import PLAYERS, Trains


class Learns(Objective):
    taps = 'neck[0]'
    needs_teacher = False

    def __init__(self, **common):
        super().__init__(**common)
        self.layer = nn.Linear(4, 1)


def toy(trains=PLAYERS, tasks=True, tap='backbone', **common):
    student, objective = ToyNet(), Learns(student=tap, **common)
    lost = freeze({'student': student}, {'it': objective}, Trains.of(trains), tasks, 64)
    return student, objective, lost


def learns(module):
    return {p.requires_grad for p in module.parameters()}


def test_who_is_left_out_has_no_gradient():
    for trains in ('student', 'objectives'):
        student, objective, lost = toy(trains)
        assert learns(student) == {trains == 'student'}
        assert learns(objective) == {trains == 'objectives'} and not lost
    assert learns(toy(weight=0)[1]) == {False}


def test_a_peer_is_a_player_too():
    networks = {'student': ToyNet(), 'other': ToyNet()}
    freeze(networks, {}, Trains.of('peers'))
    assert learns(networks['student']) == {False} and learns(networks['other']) == {True}
    with pytest.raises(ValueError, match='nobody of peers has parameters'):
        freeze({'student': ToyNet()}, {}, Trains.of('peers'))


def test_what_lies_behind_the_taps_does_not_train_without_tasks():
    student, _, lost = toy(tasks=False)
    assert lost and all(not student.get_parameter(name).requires_grad for name in lost)
    assert all(name.startswith(('neck', 'head')) for name in lost)
    kept = {n for n, p in student.named_parameters() if p.requires_grad}
    assert kept and all(name.startswith('backbone') for name in kept)
    assert all(p.grad is None for p in student.parameters())


def test_checkpointed_layers_are_reached():
    """Their parameters are not in the graph of the forward pass."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=True)

    student = build_model(tiny_classifier(4))
    student.backbone.layer1.add_module('hidden', Hidden())
    objective = Learns(student='backbone.layer1')
    twin = copy.deepcopy(student)
    lost = freeze({'student': student}, {'it': objective}, Trains.of(PLAYERS), False, 64)
    assert lost and not any('hidden' in name for name in lost)
    with torch.no_grad():  # in which a Distiller may be built
        again = freeze({'student': twin}, {'it': objective}, Trains.of(PLAYERS), False, 64)
    assert again == lost


def test_a_tap_on_the_way_to_the_losses_is_refused():
    objective = Learns(student='bbox_head.get_targets()')
    with pytest.raises(
        ValueError, match="objective 'it': without its own losses .* is not reached"
    ):
        Distiller(tiny_retinanet(4), dict(it=objective), task_weight=None)


def test_without_tasks_and_objectives_nobody_trains():
    with pytest.raises(ValueError, match='nobody of student, objectives, peers has parameters'):
        Distiller(ToyNet(), {}, task_weight=None)
