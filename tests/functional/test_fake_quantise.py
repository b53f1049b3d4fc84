"""Rounding of weights: the values of the sheets D1 and D2, and what holds for any weight."""

import pytest
import torch

from mmkd.functional.fake_quantise import (
    asymmetric,
    bucket_of,
    fake_quantise,
    from_rows,
    symmetric,
    to_rows,
    wrpn,
)

FORMS = dict(asymmetric=asymmetric, symmetric=symmetric, wrpn=wrpn)
SIX = torch.tensor([[-1, -0.4, 0.1, 0.2, 0.6, 2]], dtype=torch.float64)
TWO = torch.tensor([[-1, -0.4, 0.1, 0.2], [0.05, 0.1, 0, 0.2]], dtype=torch.float64)


def close(found, wanted):
    wanted = torch.tensor(wanted, dtype=found.dtype)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ('axis', 'bits', 'wanted'),
    [
        ('tensor', 2, [[-1, 0, 0, 0, 1, 2]]),
        ('tensor', 1, [[-1, -1, -1, -1, 2, 2]]),
        ('flat:3', 2, [[-1, -4 / 15, 0.1, 0.2, 0.8, 2]]),
    ],
)
def test_polino(axis, bits, wanted):  # D1 (d)
    close(fake_quantise(SIX, bits, axis, 'asymmetric'), wanted)


@pytest.mark.parametrize(
    ('axis', 'bits', 'form', 'wanted', 'error'),
    [
        ('tensor', 2, 'asymmetric', [[-1, -0.2, 0.2, 0.2], [0.2, 0.2, -0.2, 0.2]], [0.2, 0.2]),
        (
            *('channel', 2, 'asymmetric'),
            [[-1, -0.2, 0.2, 0.2], [0.066667, 0.133333, 0, 0.2]],
            [0.2, 0.033333],
        ),
        (
            *('channel', 4, 'symmetric'),
            [[-1, -0.428571, 0.142857, 0.142857], [0.057143, 0.114286, 0, 0.2]],
            None,
        ),
    ],
)
def test_axes_and_forms(axis, bits, form, wanted, error):  # C, D1 [V]
    found = fake_quantise(TWO, bits, axis, form)
    close(found, wanted)
    if error:
        close((found - TWO).abs().amax(1), error)


def test_wrpn_levels():  # D2 (d)
    line = torch.linspace(-1.5, 1.5, 4001)[None]
    assert wrpn(line, 2).unique().tolist() == [-1, 0, 1]
    assert len(wrpn(line, 4).unique()) == 15


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('bits', [2, 3, 4, 8, 16])
def test_a_second_call_changes_nothing(form, bits):
    weight = torch.randn(40, 57)
    once = FORMS[form](weight, bits)
    assert torch.equal(FORMS[form](once, bits), once)
    assert all(len(row.unique()) <= 2**bits for row in once[:3])


def test_the_error_is_at_most_half_a_step():
    weight = torch.randn(40, 57, dtype=torch.float64)
    size = weight.amax(1) - weight.amin(1)
    gap = (asymmetric(weight, 4) - weight).abs().amax(1)
    assert (gap <= size / 15 / 2 + 1e-12).all()
    gap = (symmetric(weight, 4) - weight).abs().amax(1)
    assert (gap <= weight.abs().amax(1) / 7 / 2 + 1e-12).all()


@pytest.mark.parametrize('form', ['asymmetric', 'symmetric'])
@pytest.mark.parametrize('value', [0.0, 0.3, -7.0])
def test_equal_numbers_stay(form, value):
    rows = torch.full((2, 5), value)
    assert torch.equal(FORMS[form](rows, 4), rows)


def test_stochastic_rounding_is_right_on_average():
    torch.manual_seed(0)
    weight = torch.tensor([[0, 0.25, 1]]).expand(20000, 3)
    found = fake_quantise(weight, 2, 'channel', 'asymmetric', True)
    assert found[:, 1].unique().tolist() == pytest.approx([0, 1 / 3])
    assert float(found[:, 1].mean()) == pytest.approx(0.25, abs=0.005)
    assert torch.equal(found[:, ::2], weight[:, ::2]), 'ends of the range have no rest'


def test_gradients_are_those_of_the_rounded_weight():
    weight = torch.randn(3, 4, requires_grad=True)
    found = fake_quantise(weight, 3, 'channel', 'symmetric')
    gradient = torch.randn(3, 4)
    found.backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_wrpn_clips_the_gradient():
    weight = torch.tensor([[-1.5, -0.5, 0.5, 1.5]], requires_grad=True)
    fake_quantise(weight, 2, 'channel', 'wrpn').sum().backward()
    assert weight.grad.tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize('axis', ['channel', 'tensor', 'flat:5', 'flat:1000'])
def test_rows_and_back(axis):
    weight = torch.randn(4, 3, 2, 1)
    rows = to_rows(weight, axis)
    assert torch.equal(from_rows(rows, weight), weight)
    if axis == 'flat:5':
        assert rows.shape == (5, 5) and (rows[-1, -1] == weight.flatten()[-1])


@pytest.mark.parametrize('axis', ['flat:0', 'flat:', 'flat:-3', 'row', None, 256])
def test_no_axis(axis):
    assert bucket_of(axis) is None
