"""Two processes, each with its part of a batch: what is compared with all, and what stays the same.

Losses on relations compare the images of all ranks, and what objectives find out from the first
batches, or remember, is the same on every rank. One pair of processes does it all.
"""

import pytest
import torch
from pyramid_toys import prepare, random_maps, trace_of
from relation_objectives import NAMES, relation
from segmentation_toys import ToySegmentor, make_step
from segmentation_toys import prepare as prepare_for
from two_ranks import of_two_ranks

from mmkd.methods.cirkd_memory import CIRKDMemory
from mmkd.methods.crd import CRD
from mmkd.methods.hdkd import HDKD
from mmkd.methods.multi_exit import annealed
from mmkd.methods.quant_mimic import QuantMimic
from mmkd.testing import class_labels, make_trace, ready

HALVES = slice(0, 4), slice(4, 8)
LABELS = torch.arange(8) % 3
#: what is found out from the first batches
FOUND = {
    'hdkd': lambda: HDKD(refresh=2),
    'quant': lambda: QuantMimic(proposal_source='gt'),
}


def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 4, generator=generator), torch.rand(8, 6, generator=generator)


def loss_of(objective, part):
    student, teacher = (x[part] for x in rows())
    samples = [class_labels(LABELS)[i] for i in range(8)[part]]
    trace = make_trace({'x': student}, {'x': teacher}, samples=samples)
    torch.manual_seed(0)
    return sum(ready(objective, trace)(trace).values())


def value(name, part, **options):
    return float(loss_of(relation(name, 'x', **options), part).detach())


def crd_after(parts):
    """State and losses of a CRD that saw these batches one after the other."""
    torch.manual_seed(0)
    objective = CRD('x', size=8, negatives=5, dim=3)
    losses = [float(loss_of(objective, part).detach()) for part in parts]
    return {k: v.clone() for k, v in objective.named_buffers()}, losses


def state_after(name, seeds):
    """Buffers after a step on each of these batches; larger seeds have larger features."""
    torch.manual_seed(0)
    objective = prepare(FOUND[name](), [16, 16], family='dense')
    for seed in seeds:
        maps = [(1 + seed) * m for m in random_maps(2, [16, 16], seed=seed)]
        objective(trace_of(objective, maps, [m + 0.1 for m in maps], [[[0, 0, 30, 30]]] * 2))
    return {k: v for k, v in objective.state_dict().items() if k in dict(objective.named_buffers())}


def queues_after(rank):
    """Rank 0 sees class 0 in both images; rank 1 class 1 in one of them; then both see nothing."""
    torch.manual_seed(0)
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare_for(CIRKDMemory(pixel_size=40, region_size=20, pushed=2), *models)
    labels = torch.zeros(2, 32, 48).long()
    if rank == 1:
        labels[:] = 255
        labels[1, :, :8] = 1
    objective(make_step(objective, *models, labels=labels))
    losses = objective(make_step(objective, *models, labels=torch.full_like(labels, 255)))
    assert all(float(value.detach()) == 0 for value in losses.values())
    return {k: v for k, v in objective.state_dict().items() if 'queue' in k}


def temperature(*ranks):
    """The next temperature, if one sees sure predictions and the other none, and more of them."""
    rows = [torch.tensor([[9.0, 0, 0]]), torch.zeros(3, 3)]
    return float(annealed(torch.ones(()), torch.cat([rows[rank] for rank in ranks]), 0.4))


def everything(rank):
    states = {name: state_after(name, (rank, 2 + rank)) for name in FOUND}
    return dict(
        relations={
            name: [value(name, HALVES[rank], gather=g) for g in (True, False)] for name in NAMES
        },
        crd=crd_after([HALVES[rank]]),
        states=states | {'memory': queues_after(rank)},
        temperature=temperature(rank),
    )


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    return of_two_ranks(everything, tmp_path_factory.mktemp('ranks'))


@pytest.mark.parametrize('name', NAMES)
def test_gather_compares_images_of_all_ranks(name, ranks):
    whole = value(name, slice(0, 8))
    halves = [value(name, half) for half in HALVES]
    for found, alone in zip(ranks, halves, strict=True):
        assert found['relations'][name] == pytest.approx([whole, alone], rel=1e-5)
    assert whole != pytest.approx(halves[0], rel=1e-3)


def test_crd_has_one_memory(ranks):
    (first, losses), (second, others) = (found['crd'] for found in ranks)
    whole, (total,) = crd_after([slice(0, 8)])
    for key, tensor in whole.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, msg=key)
    assert (losses[0] + others[0]) / 2 == pytest.approx(total, rel=1e-5)


def test_both_remember_what_either_saw(ranks):
    memory = ranks[0]['states']['memory']
    assert memory['region_queue.next'].tolist() == [2, 1, 0]
    assert memory['pixel_queue.next'].tolist() == [4, 2, 0]


def test_two_ranks_agree(ranks):  # HD-6
    first, second = (found['states'] for found in ranks)
    for name in (*FOUND, 'memory'):
        assert first[name].keys() == second[name].keys()
        assert all(torch.equal(v, second[name][k]) for k, v in first[name].items()), name
    alone = [state_after('quant', (rank, 2 + rank))['step'] for rank in (0, 1)]
    assert alone[0] < alone[1] == first['quant']['step']
    alone = [state_after('hdkd', (rank,)) for rank in (0, 1)]
    assert not torch.equal(alone[0]['partition.centroids'], alone[1]['partition.centroids'])


def test_the_temperature_is_that_of_all_images(ranks):
    """The mean largest probability is 1/2: that of one rank is 1, that of the other 1/3."""
    assert [temperature(0), temperature(1)] == pytest.approx([1.05, 1])
    assert temperature(0, 1) == pytest.approx(1.05)
    assert [found['temperature'] for found in ranks] == pytest.approx([1.05, 1.05])
