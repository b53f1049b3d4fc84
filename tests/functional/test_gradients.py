"""Gradients that end at a place of the graph."""

import pytest
import torch
from torch.autograd.graph import get_gradient_edge

from mmkd.functional.gradients import gradients_at, gradients_by_place, in_half


def graph(dtype=torch.float32):
    weight = torch.full((3,), 2.0, requires_grad=True)
    return weight, (weight * 3).to(dtype)


def test_it_ends_at_the_place_and_keeps_the_graph():
    weight, x = graph()
    seen = []
    weight.register_hook(seen.append)
    loss = (x * torch.tensor([1.0, 2, 3])).sum()
    for _ in range(2):
        (found,) = gradients_at(loss, [x])
        assert found.tolist() == [1, 2, 3]
    assert weight.grad is None and not seen
    loss.backward()
    assert weight.grad.tolist() == [3, 6, 9]


def test_none_where_the_loss_does_not_reach():
    _, x = graph()
    _, other = graph()
    found = gradients_at(x.sum(), [other, x])
    assert found[0] is None and found[1] is not None
    assert gradients_at(torch.ones(()), [x, other]) == [None, None]
    assert gradients_at(x.sum(), []) == []


def test_a_place_remains_where_it_was_when_the_tensor_is_overwritten():
    _, x = graph()
    edge, copy = get_gradient_edge(x), x.clone()
    x.mul_(5)
    (task,), (term,) = gradients_at(x.sum(), [edge]), gradients_at(copy.sum(), [edge])
    assert task.tolist() == [5, 5, 5] and term.tolist() == [1, 1, 1]
    assert gradients_at(copy.sum(), [x]) == [None], 'the tensor itself is another place now'


@pytest.mark.parametrize(('scale', 'wanted'), [(1.0, 0.0), (1024.0, 1e-8)])
def test_small_gradients_survive_half_precision_with_a_scale(scale, wanted):
    _, x = graph(torch.float16)
    loss = x.float().sum() * 1e-8
    (found,) = gradients_at(loss, [x], scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full((3,), wanted), rtol=0.01, atol=0)


def test_gradients_pass_through_half_precision_at_a_tensor_or_behind_it():
    half, single = torch.ones(1).half(), torch.ones(1)
    assert in_half([single, half], 'cpu') and not in_half([single, single.bfloat16()], 'cpu')
    with torch.autocast('cpu', dtype=torch.float16):
        assert in_half([single], 'cpu'), 'a normalisation gives float32, what follows does not'
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert not in_half([single], 'cpu')


def test_groups_of_places_share_one_pass(monkeypatch):
    _, x = graph()
    _, other = graph()
    first, second = map(get_gradient_edge, (x, other))
    passes, stock = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, 'grad', lambda *a, **k: passes.append(1) or stock(*a, **k))
    found = gradients_by_place(2 * x.sum(), [[first], [first, second]])
    assert found.keys() == {first, second} and len(passes) == 1
    assert found[first].tolist() == [2, 2, 2] and found[second] is None
