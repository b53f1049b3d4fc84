"""Two gloo processes with N images each give the gradient of one process with 2N.

For every objective that declares ``rank_invariant``; one pair of processes does them all.
"""

import pytest
import torch
from cases import method, pairs, rank_gradient
from torch import distributed, multiprocessing

INVARIANT = [(name, family) for name, family in pairs() if method(name).rank_invariant]


def average_gradients(rank: int, folder: str) -> None:
    """What DDP would have: the mean over ranks. Written by rank 0."""
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
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
    if rank == 0:
        torch.save(result, f'{folder}/gradients.pth')
    distributed.destroy_process_group()


def _mean(a: dict, b: dict) -> dict:
    return {key: (a[key] + b[key]) / 2 if key in a and key in b else None for key in {**a, **b}}


@pytest.fixture(scope='module')
def of_two(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('ranks'))
    multiprocessing.spawn(average_gradients, (folder,), nprocs=2)
    return torch.load(f'{folder}/gradients.pth')


@pytest.mark.parametrize('case', INVARIANT, ids='-'.join)
def test_two_ranks_equal_one(case, of_two):
    found, wanted = of_two[case], rank_gradient(*case, rows=slice(0, 4))
    assert isinstance(found, dict), found
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 0
    for key, gradient in wanted.items():
        assert found[key] is not None, f'{key} has a gradient on one rank only'
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * largest, msg=key)
