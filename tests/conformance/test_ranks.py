"""Two gloo processes: gradients of one process with both batches, and a rank without boxes.

The first for every objective that declares ``rank_invariant``, the second for every one that works
with detectors; one pair of processes does them all.
"""

import copy

import pytest
import torch
from cases import batch, build, method, pairs, rank_gradient, untouched
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from two_ranks import of_two_ranks

from mmkd.families import DETECTORS

DETECTING = [(name, family) for name, family in pairs() if family in DETECTORS or family == 'gfl']
INVARIANT = [(name, family) for name, family in pairs() if method(name).rank_invariant]


def average_gradients(rank: int) -> dict:
    """What DDP would have: the mean over ranks."""
    result = {}
    for case in INVARIANT:
        try:
            gradient = rank_gradient(*case, rows=slice(2 * rank, 2 * rank + 2))
        except Exception as error:  # the other rank must not wait
            gradient = error
        everyone: list = [None, None]
        distributed.all_gather_object(everyone, gradient)
        failed = [g for g in everyone if isinstance(g, Exception)]
        result[case] = repr(failed[0]) if failed else _mean(*everyone)
    return result


def _mean(a: dict, b: dict) -> dict:
    return {key: (a[key] + b[key]) / 2 if key in a and key in b else None for key in {**a, **b}}


def train_beside_an_empty_rank(rank: int) -> dict:
    """Two steps of DDP, which would miss a parameter that a rank's loss does not reach."""
    result = {}
    for name, family in DETECTING:
        try:
            result[name, family] = _gradients_under_ddp(name, family, empty=rank == 1)
        except Exception as error:
            result[name, family] = repr(error)
    return result


def _gradients_under_ddp(name: str, family: str, empty: bool) -> float:
    student, teacher = untouched(family)
    torch.manual_seed(0)
    distiller = build(name, family, copy.deepcopy(student), teacher)
    model = DistributedDataParallel(distiller, broadcast_buffers=False)
    inputs, samples = batch(family, empty=empty)
    for _ in range(2):
        losses = model(inputs, copy.deepcopy(samples), mode='loss')
        model.zero_grad()
        distiller.parse_losses(losses)[0].backward()
    return sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)


#: both kinds of tests, for one pair of processes
KINDS = (average_gradients, train_beside_an_empty_rank)


def everything(rank: int) -> list[dict]:
    return [kind(rank) for kind in KINDS]


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """For each kind, what the two ranks found."""
    found = of_two_ranks(everything, tmp_path_factory.mktemp('ranks'))
    return dict(zip(KINDS, zip(*found, strict=True), strict=True))


@pytest.mark.parametrize('case', INVARIANT, ids='-'.join)
def test_two_ranks_equal_one(case, ranks):
    found, wanted = ranks[average_gradients][0][case], rank_gradient(*case, rows=slice(0, 4))
    assert isinstance(found, dict), found
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 0
    for key, gradient in wanted.items():
        assert found[key] is not None, f'{key} has a gradient on one rank only'
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * largest, msg=key)


@pytest.mark.parametrize('case', DETECTING, ids='-'.join)
def test_a_rank_without_boxes(case, ranks):
    first, second = (result[case] for result in ranks[train_beside_an_empty_rank])
    assert isinstance(first, float) and isinstance(second, float), (first, second)
    assert first == pytest.approx(second, rel=1e-5) and first > 0
