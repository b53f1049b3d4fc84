"""Two gloo ranks: both have the factors of one process with the whole batch."""

import pytest
import torch
from distiller_toys import Square, batch, toy
from two_ranks import of_two_ranks

from mmkd.balance.projection import projections
from mmkd.balance.ranks import sizes_of_all_ranks
from mmkd.functional.gather import mean_over_ranks
from mmkd.testing import class_labels, pixels

BALANCES = {
    'ratio': dict(type='mmkd.GradientRatio', ratio=0.3, at='backbone', clip=(1e-9, 1e9)),
    'aekd': dict(type='mmkd.AEKD', cap=0.9),
    'maps': dict(type='mmkd.AEKD', cap=0.9, at='backbone', normalise=False),
}


def factors(rank: int | None) -> dict:
    """By balance, the factors of one rank's two images, or of all four."""
    chosen = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    inputs, samples = pixels(4, (64, 96)), class_labels(torch.arange(4) % 3)
    found = {}
    for name, balance in BALANCES.items():
        distiller = toy(dict(a=Square(), b=Square(student='head.fc')), balance=balance | AT[name])
        losses = distiller(inputs[chosen], samples[chosen], mode='loss')
        found[name] = [float(losses[f'kd.{o}.factor']) for o in 'ab']
    found['sizes'] = sizes(rank or 0) if rank is not None else None
    found['pushed'] = pushed(chosen)
    return found


#: the two objectives have no tap in common
AT = {'ratio': {}, 'aekd': dict(at='neck[1]'), 'maps': {}}


def sizes(rank: int) -> tuple:
    """A map of another size on each rank."""
    mine = torch.ones(1, 2 + rank, 3 - rank)
    (padded,) = sizes_of_all_ranks([mine])
    return tuple(padded.shape), float(padded.sum()), float(mean_over_ranks(padded.sum()))


def pushed(chosen: slice) -> list:
    """What a projection adds to the gradients of some of four images; the first two agree."""
    x = torch.zeros(4, requires_grad=True)[chosen] * 1
    term = torch.tensor([1.0, 1.0, -3.0, -3.0])[chosen]
    task = dict(a=[torch.ones_like(x)])
    added, conflicts = projections(dict(a=[term]), task, dict(a=[x]), {}, x.device)
    assert conflicts == 1
    return torch.autograd.grad(added['a'], x)[0].tolist()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    return of_two_ranks(factors, tmp_path_factory.mktemp('balance'))


@pytest.mark.parametrize('name', BALANCES)
def test_both_ranks_have_the_factors_of_the_whole_batch(name, ranks):
    first, second = (rank[name] for rank in ranks)
    assert first == second
    assert first == pytest.approx(factors(None)[name], rel=1e-4)
    assert first[0] != 1 and first[1] != 1


def test_a_projection_is_that_of_the_whole_batch(ranks):
    assert [rank['pushed'] for rank in ranks] == [[1, 1], [1, 1]]
    assert pushed(slice(None)) == [1, 1, 1, 1]


def test_maps_of_two_sizes_are_padded_at_the_end(ranks):
    assert [rank['sizes'] for rank in ranks] == [((1, 3, 3), 6, 6)] * 2


def test_one_process_changes_nothing():
    x = torch.ones(2, 3, 3)
    assert mean_over_ranks(x) is x and sizes_of_all_ranks([x])[0] is x
    assert batch()[0].shape[0] == 2
