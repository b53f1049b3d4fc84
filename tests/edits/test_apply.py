"""Edits are held to what they claim, and leave random streams alone."""

import pytest
import torch
from torch import nn

from mmkd.edits import apply_edits, made_in
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_classifier

QUANTISED = dict(type='mmkd.FakeQuant', bits=4)


class Shift:
    """Adds to the bias of the last layer."""

    def __init__(self, by, claims='same', **attributes):
        self.by, self.claims = by, claims
        vars(self).update(attributes)

    def __call__(self, model):
        torch.rand(3)
        with torch.no_grad():
            model.head.fc.bias += self.by
        return model


def net():
    return build_model(tiny_classifier(4))


def test_what_was_made():
    model = apply_edits(net(), [QUANTISED, Shift(0, describe=lambda: 'moved nothing')])
    first, second = made_in(model)
    assert (first.name, first.entry, first.in_weights) == ('FakeQuant', QUANTISED, True)
    assert second.name == 'Shift' and not second.in_weights
    assert second.line == 'moved nothing; outputs differ by at most 0'
    assert made_in(net()) == []
    model = apply_edits(model, [Shift(1, 'none')])
    assert [x.name for x in made_in(model)] == ['FakeQuant', 'Shift', 'Shift']
    assert made_in(model)[-1].line == 'nothing is claimed of the outputs'


def test_random_streams_do_not_move():
    torch.manual_seed(0)
    model = net()
    state = torch.get_rng_state()
    apply_edits(model, [QUANTISED, Shift(0)])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_broken_claim_says_by_how_much():
    with pytest.raises(
        ValueError,
        match=r'Shift claims to change no output, but those of head dif'
        r'fer by up to 0.25 on a probe image, and rounding explains 1e-05',
    ):
        apply_edits(net(), [Shift(0.25)])
    assert 'at most 0.25' in made_in(apply_edits(net(), [Shift(0.25, 'shapes')]))[0].line
    apply_edits(net(), [Shift(1e-7)])


def test_shapes():
    def edit(model):
        model.head.fc = nn.Linear(model.head.fc.in_features, 7)
        return model

    edit.claims = 'shapes'
    with pytest.raises(
        ValueError,
        match=r'edit claims outputs of equal shape, but head gives \(1,'
        r' 7\) instead of \(1, 3\)',
    ):
        apply_edits(net(), [edit])


def test_names_of_a_student_that_is_deployed_as_the_plain_model():
    def edit(model):
        model.head.fc = nn.Sequential(model.head.fc)
        return model

    apply_edits(net(), [edit])
    edit.in_weights = True
    with pytest.raises(ValueError, match='renames or adds head.fc.0.bias'):
        apply_edits(net(), [edit])


def test_a_claim_that_cannot_be_checked(caplog):
    model = ToyNet()
    model.neck = nn.Conv2d(7, 7, 1)

    def edit(model):
        return model

    edit.claims = 'same'
    line = made_in(apply_edits(model, [edit]))[0].line
    assert line.startswith("claims 'same', which could not be checked (RuntimeError")


@pytest.mark.parametrize(
    ('edits', 'kind', 'message'),
    [
        (QUANTISED, TypeError, 'edits must be a list'),
        ('mmkd.FakeQuant', TypeError, 'edits must be a list'),
        ([lambda model: None], TypeError, 'returned NoneType; an edit returns the network'),
        ([Shift(0, 'much')], ValueError, "claims must be one of .* found 'much'"),
    ],
)
def test_bad_input(edits, kind, message):
    with pytest.raises(kind, match=message):
        apply_edits(net(), edits)
