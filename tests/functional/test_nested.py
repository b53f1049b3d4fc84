"""Tensors in nested containers: in order, and changed without changing the containers."""

from collections import namedtuple

import torch

from mmkd.functional.nested import flatten, map_tensors

A, B, C = (torch.full((1,), float(i)) for i in range(3))
Pair = namedtuple('Pair', 'first second')


def test_flatten_keeps_the_order_and_skips_what_is_no_tensor():
    found = flatten([A, None, dict(x=(B, 'text'), y=[[C]]), 3])
    assert [x is y for x, y in zip(found, (A, B, C), strict=True)] == [True] * 3
    assert flatten(None) == []


def test_map_tensors_keeps_the_form():
    found = map_tensors(dict(x=(A, [B]), y='text'), lambda x: x + 1)
    assert found == dict(x=(A + 1, [B + 1]), y='text')
    pair = Pair(A, B)
    assert map_tensors(pair, lambda x: x + 1) is pair
