"""KL divergence of similarities against autograd, and its memory."""

import pytest
import torch

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional import similarity_kl as module
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.similarity_kl import similarity_kl


def tensors(rows=6, groups=2, m=5, wide=3):
    torch.manual_seed(0)
    shapes = (rows, 4), (rows, wide), (groups, m, 4), (groups, m, wide)
    q_s, q_t, k_s, k_t = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return (q_s.requires_grad_(), q_t), (k_s.requires_grad_(), k_t)


def slow(queries, keys, tau):
    found = ((q @ k.mT) / tau for q, k in zip(queries, keys, strict=True))
    return soft_kl(*found, 1.0).sum()


@pytest.mark.parametrize('at_once', [2**22, 20, 1])
@pytest.mark.parametrize('tau', [0.1, 1.0])
def test_value_and_gradients_are_those_of_autograd(monkeypatch, at_once, tau):
    monkeypatch.setattr(module, 'AT_ONCE', at_once)
    queries, keys = tensors()
    found, wanted = similarity_kl(queries, keys, tau), slow(queries, keys, tau)
    torch.testing.assert_close(found, wanted)
    learnt = queries[0], keys[0]
    for a, b in zip(
        torch.autograd.grad(3 * found, learnt), torch.autograd.grad(3 * wanted, learnt), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_rows_may_be_their_own_keys():
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, 3, dtype=torch.float64)
    results = [
        torch.autograd.grad(f((x.flatten(0, 1), y.flatten(0, 1)), (x, y), 0.5), x)[0]
        for f in (similarity_kl, slow)
    ]
    torch.testing.assert_close(*results)


def test_only_what_is_asked_for_has_a_gradient():
    queries, keys = tensors()
    found = similarity_kl(queries, (keys[0].detach(), keys[1]), 1.0)
    found.backward()
    assert queries[0].grad is not None and keys[0].grad is None
    with torch.no_grad():
        assert not similarity_kl(queries, keys, 1.0).requires_grad


def test_no_rows_give_zero():
    queries, keys = tensors(rows=0)
    found = similarity_kl(queries, keys, 1.0)
    found.backward()
    assert float(found) == 0 and not keys[0].grad.any()


def test_memory_is_that_of_a_part(monkeypatch):
    x = torch.rand(1, 600, 2, requires_grad=True)

    def step():
        similarity_kl((x[0], x[0]), (x, x), 1.0).backward()

    peaks = []
    for at_once in (2**22, 6000):
        monkeypatch.setattr(module, 'AT_ONCE', at_once)
        peaks.append(peak_bytes(step))
    assert peaks[1] < peaks[0] / 10
