"""Peers before the first step: equal weights, optimisers, classes, and peers for nothing."""

import copy

import pytest
import torch
from torch import nn

from mmkd.checks.labels import check_peer
from mmkd.checks.peers import check_peers, same_weights
from mmkd.distiller import Distiller
from mmkd.families.class_heads import Labels
from mmkd.methods.kd import KD
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier


def model_with(peer, objectives=None):
    objectives = dict(down=KD(teacher_name='other')) if objectives is None else objectives
    return Distiller(ToyNet(), objectives, peers=dict(other=peer))


def optimisers(model, *names):
    class Wrapper:
        param_groups = [dict(params=list(model.peers.parameters()))]

    return {name: Wrapper for name in names}


def test_equal_weights_are_refused_when_training_begins():
    torch.manual_seed(0)
    model = model_with(ToyNet())
    check_peers(model, optimisers(model, 'peer.other'), starts=True)
    model.peers['other'].load_state_dict(model.student.state_dict())
    with pytest.raises(ValueError, match="'student' and 'other' start with the same weights"):
        check_peers(model, optimisers(model, 'peer.other'), starts=True)
    check_peers(model, optimisers(model, 'peer.other'), starts=False)


def test_a_peer_without_an_optimiser_is_refused():
    model = model_with(ToyNet(6))
    found = optimisers(model, 'student')
    for wrapper in (found, found['student']):  # several, or one for all
        with pytest.raises(RuntimeError, match="peer 'other' needs an optimiser of its own, which"):
            check_peers(model, wrapper, starts=True)


def test_a_peer_that_nobody_hears_is_reported(log):
    model = model_with(ToyNet(6), {})
    check_peers(model, optimisers(model, 'peer.other'), starts=True)
    assert "peer 'other' is trained, but no objective learns from it or teaches it" in log.text


def test_a_peer_of_other_classes_is_refused():
    labels = Labels(('a', 'b', 'c'))
    check_peer('other', build_model(tiny_classifier(num_classes=3)), labels)
    with pytest.raises(ValueError, match=r"has 3 classes \(a, b, c\), but peer 'other' is built"):
        check_peer('other', build_model(tiny_classifier(num_classes=4)), labels)


def test_what_equal_weights_are():
    one = nn.Linear(2, 2)
    assert same_weights(one, copy.deepcopy(one))
    assert not same_weights(one, nn.Linear(2, 2)) and not same_weights(one, nn.Linear(2, 3))
    assert not same_weights(one, nn.Sequential(one))
