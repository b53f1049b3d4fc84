"""Rounding of weights: the values of the sheets D1 and D2, and what holds for any weight."""

import pytest
import torch

from mmkd.functional.fake_quantise import (
    asymmetric,
    bucket_of,
    clipped,
    fake_quantise,
    first_step,
    from_rows,
    learned_step,
    nearest_point,
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


def test_a_learned_step():  # C, LSQ [V]
    weight = torch.tensor([[0.9, -0.35, 0.1, -1.6]], dtype=torch.float64, requires_grad=True)
    step = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    found = learned_step(weight, step, 2)
    close(found.detach(), [[0.5, -0.5, 0, -1]])
    of_step = [torch.autograd.grad(x, step, retain_graph=True)[0].item() for x in found[0]]
    assert of_step == pytest.approx([x * 0.5 for x in (1, -0.3, -0.2, -2)])
    found.sum().backward()
    assert step.grad.item() == pytest.approx(-1.5 * 0.5)
    assert weight.grad.tolist() == [[0, 1, 1, 0]]
    assert first_step(weight, 2).item() == pytest.approx(1.475)


def test_the_step_of_a_channel_is_scaled_by_the_size_of_the_tensor():  # correction 7
    weight, step = torch.randn(4, 9), torch.full((4, 1), 0.1, requires_grad=True)
    learned_step(weight, step, 2).sum().backward()
    alone = torch.full((1, 1), 0.1, requires_grad=True)
    learned_step(weight[:1], alone, 2).sum().backward()
    assert step.grad[0].item() == pytest.approx(alone.grad.item() / 2)


def test_points():
    """The gradient of a point: sum over its weights of gradient times range."""
    points = torch.tensor([0.9, 0.1, 0.5], requires_grad=True)  # in any order
    rows = torch.tensor([[-1.0, 0.2, 1], [0, 3, 4]])
    low, size = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True) - rows.amin(1, keepdim=True)
    found = nearest_point(rows, low, size, points)
    close(found.detach(), [[-0.8, 0, 0.8], [0.4, 3.6, 3.6]])
    (found * torch.tensor([[1.0, 2, 3], [4, 5, 6]])).sum().backward()
    assert points.grad.tolist() == [3 * 2 + (5 + 6) * 4, 1 * 2 + 4 * 4, 2 * 2]
    assert torch.equal(nearest_point(found.detach(), low, size, points), found), 'once is enough'


def test_clipped_activations():  # C, PACT [V]
    x = torch.tensor([-1, 0.3, 1.4, 2.5], dtype=torch.float64, requires_grad=True)
    most = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    found = clipped(x, most, 2)
    close(found.detach(), [0, 0, 4 / 3, 2])
    of_most = [torch.autograd.grad(y, most, retain_graph=True)[0].item() for y in found]
    assert of_most == [0, 0, 0, 1]
    found.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    line = torch.linspace(-0.5, 1.5, 5001)
    assert len(clipped(line, torch.ones(1), 8).unique()) == 256, 'WRPN, D2 (d)'
