"""Edited models are the models that the edits return."""

import torch
from torch import nn

from mmkd.edits import edited
from mmkd.registry import MODELS
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier


def test_without_edits_it_is_the_model_bit_for_bit():
    torch.manual_seed(0)
    plain = build_model(tiny_classifier(4))
    torch.manual_seed(0)
    found = MODELS.build(dict(type='mmkd.Edited', model=tiny_classifier(4), edits=[]))
    assert type(found) is type(plain)
    assert found.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in found.state_dict().items())


def test_edits_are_called_in_their_order_and_draw_nothing():
    seen = []

    def edit(name):
        def call(model):
            seen.append((name, model))
            torch.rand(3)
            return nn.Sequential(model)

        return call

    net = ToyNet()
    torch.manual_seed(0)
    found = edited(net, [edit('first'), edit('second')])
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0][0] is net and seen[0] == ('first', net) and seen[1][0] == 'second'


def test_of_a_distiller_the_student_is_edited():
    distiller = dict(type='mmkd.Distiller', student=tiny_classifier(4), objectives={})
    assert type(edited(distiller, [])).__name__ == 'Classifier'


def test_the_preprocessor_of_a_run_is_taken_where_the_model_has_none():
    config = tiny_classifier(4)
    preprocessor = dict(config.pop('data_preprocessor'), mean=[1.0, 2, 3])
    found = MODELS.build(
        dict(type='mmkd.Edited', model=config, edits=[], data_preprocessor=preprocessor)
    )
    assert found.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
