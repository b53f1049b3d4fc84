"""What objectives find out from the first batches, or remember, is the same on every rank."""

import pytest
import torch
from pyramid_toys import prepare, random_maps, trace_of
from segmentation_toys import ToySegmentor, make_step
from segmentation_toys import prepare as prepare_for
from torch import distributed, multiprocessing

from mmkd.methods.cirkd_memory import CIRKDMemory
from mmkd.methods.hdkd import HDKD
from mmkd.methods.quant_mimic import QuantMimic

METHODS = {
    'hdkd': lambda: HDKD(refresh=2),
    'quant': lambda: QuantMimic(proposal_source='gt'),
}


def state_after(name, seeds):
    """Buffers after a step on each of these batches; larger seeds have larger features."""
    torch.manual_seed(0)
    objective = prepare(METHODS[name](), [16, 16], family='dense')
    for seed in seeds:
        maps = [(1 + seed) * m for m in random_maps(2, [16, 16], seed=seed)]
        objective(trace_of(objective, maps, [m + 0.1 for m in maps], [[[0, 0, 30, 30]]] * 2))
    return {k: v for k, v in objective.state_dict().items() if k in dict(objective.named_buffers())}


def memory_after(rank):
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


def run(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    states = {name: state_after(name, (rank, 2 + rank)) for name in METHODS}
    states['memory'] = memory_after(rank)
    torch.save(states, f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(run, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


def test_both_remember_what_either_saw(of_ranks):
    first, _ = of_ranks
    assert first['memory']['region_queue.next'].tolist() == [2, 1, 0]
    assert first['memory']['pixel_queue.next'].tolist() == [4, 2, 0]


def test_two_ranks_agree(of_ranks):  # HD-6
    first, second = of_ranks
    for name in (*METHODS, 'memory'):
        assert first[name].keys() == second[name].keys()
        assert all(torch.equal(v, second[name][k]) for k, v in first[name].items()), name
    alone = [state_after('quant', (rank, 2 + rank))['step'] for rank in (0, 1)]
    assert alone[0] < alone[1] == first['quant']['step']
    alone = [state_after('hdkd', (rank,)) for rank in (0, 1)]
    assert not torch.equal(alone[0]['partition.centroids'], alone[1]['partition.centroids'])
