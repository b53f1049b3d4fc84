"""Trained parameters that the first backward pass does not reach."""

import pytest
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd.checks.unmoved import Reached
from mmkd.testing import ToyNet, classification_batch


def backward(model):
    inputs, samples = classification_batch(2)
    model(inputs, samples, mode='loss')['loss_cls'].backward()


def checkpointed(model):
    """As mmengine's activation_checkpointing does, whose re-entrant form needs a gradient."""
    forward = model.backbone.forward
    model.backbone.forward = lambda x: checkpoint(forward, x, use_reentrant=True)
    return model


def test_all_is_reached(log):
    model = ToyNet()
    reached = Reached(model)
    backward(model)
    reached.finish(True)
    assert 'gradient' not in log.text
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_backbone_that_loses_its_gradient_stops_the_run():
    model = checkpointed(ToyNet())
    reached = Reached(model)
    backward(model)
    message = "any of the 2 trained parameters of 'backbone' in the first step.*activation_check"
    with pytest.raises(RuntimeError, match=message):
        reached.finish(True)


def test_without_ground_truth_a_whole_part_is_only_named(log):
    model = checkpointed(ToyNet())
    reached = Reached(model)
    backward(model)
    reached.finish(False)
    assert "2 of 2 trained parameters of 'backbone' got no gradient" in log.text


def test_single_layers_are_named(log):
    model = ToyNet()
    model.head.unused = nn.Linear(2, 2)
    model.neck.requires_grad_(False)  # frozen on purpose: not trained, not named
    reached = Reached(model)
    backward(model)
    reached.finish(True)
    assert "2 of 6 trained parameters of 'head' got no gradient" in log.text
    assert 'head.unused.weight, head.unused.bias' in log.text and 'neck' not in log.text


def test_who_rests_in_the_first_step_is_not_named(log):
    model = ToyNet()
    model.other = nn.Linear(2, 2)
    reached = Reached(model)
    backward(model)
    reached.finish(True, model.other.parameters())
    assert not log.text
