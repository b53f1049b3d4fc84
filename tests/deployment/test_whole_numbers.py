"""Rounded weights are whole numbers times a step, also behind a folded BatchNorm."""

import pytest
import torch
from torch import nn

from mmkd.adapters.fake_quant import Rounding
from mmkd.deployment.whole_numbers import folded, roundings, to_whole
from mmkd.functional.fake_quantise import fake_quantise, first_step, learned_step
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier

SYMMETRIC = Rounding(4)


def rounded(bits=4, axis='channel', form='symmetric'):
    torch.manual_seed(0)
    return fake_quantise(torch.randn(5, 3, 3, 3), bits, axis, form)


@pytest.mark.parametrize('bits', [2, 4, 5, 8, 12, 16])
@pytest.mark.parametrize(
    ('axis', 'form'), [('channel', 'symmetric'), ('tensor', 'symmetric'), ('channel', 'wrpn')]
)
def test_numbers_of_the_bits_that_were_asked(bits, axis, form):
    weight = rounded(bits, axis, form)
    whole = to_whole('conv', weight, Rounding(bits, axis, form))
    assert int(whole.numbers.abs().max()) == 2 ** (bits - 1) - 1
    again = whole.numbers * whole.step.view(-1, 1, 1, 1)
    torch.testing.assert_close(again.float(), weight, rtol=2e-7, atol=0)
    assert whole.bits == bits and whole.stored == (4 if bits <= 4 else 8 if bits <= 8 else 16)


def test_learned_steps():
    torch.manual_seed(0)
    rows = torch.randn(5, 27)
    step = first_step(rows, 3)
    weight = learned_step(3 * rows, step, 3).view(5, 3, 3, 3)
    whole = to_whole('conv', weight, Rounding(3, form='lsq'), step)
    assert int(whole.numbers.min()) == -4 and int(whole.numbers.max()) == 3
    with pytest.raises(ValueError, match='conv was trained with learned steps, which'):
        to_whole('conv', weight, Rounding(3, form='lsq'))


def test_a_channel_of_zeros():
    weight = rounded()
    weight[2] = 0
    whole = to_whole('conv', weight, SYMMETRIC)
    assert not whole.numbers[2].any() and whole.step[2] == 1


def test_a_folded_norm_multiplies_the_steps():
    weight = rounded()
    whole = to_whole('conv', weight, SYMMETRIC)
    factor = torch.tensor([0.5, -2, 3, 1, 0.01])
    found = folded(whole, weight, weight * factor.view(-1, 1, 1, 1))
    torch.testing.assert_close(found.step, whole.step * factor.abs().double())
    assert torch.equal(found.numbers[1], -whole.numbers[1])
    assert torch.equal(found.numbers[0], whole.numbers[0])
    assert folded(whole, weight, torch.randn_like(weight)) is None


@pytest.mark.parametrize(
    ('rounding', 'message'),
    [
        (
            Rounding(4, 'flat:8', 'asymmetric'),
            "form='asymmetric' and axis='flat:8', whose values are",
        ),
        (Rounding(4, form='points'), "form='points'.* or export with --float"),
        (Rounding(3), r'conv: its weights miss the multiples of their step by up to 0\.\d+ of it'),
    ],
)
def test_what_has_no_whole_numbers(rounding, message):
    with pytest.raises(ValueError, match=message):
        to_whole('conv', rounded(), rounding)


def test_how_edits_round_a_network():
    edits = [
        dict(type='mmkd.FakeQuant', bits=4, only=['layer1']),
        dict(type='mmkd.FakeQuant', bits=3, only=['layer2']),
    ]
    model = build_model(tiny_classifier(4))
    found = roundings(model, edits)
    assert {r.bits for n, r in found.items() if 'layer1' in n} == {4}
    assert {r.bits for n, r in found.items() if 'layer2' in n} == {3}
    assert isinstance(model.get_submodule(next(iter(found))), nn.Conv2d)
