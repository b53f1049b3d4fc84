"""What objectives find out from the first batches is the same on every rank."""

import torch
from pyramid_toys import prepare, random_maps, trace_of
from torch import distributed, multiprocessing

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


def run(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    states = {name: state_after(name, (rank, 2 + rank)) for name in METHODS}
    torch.save(states, f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


def test_two_ranks_agree(tmp_path):  # HD-6
    multiprocessing.spawn(run, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    for name in METHODS:
        assert first[name].keys() == second[name].keys()
        assert all(torch.equal(v, second[name][k]) for k, v in first[name].items()), name
    alone = [state_after('quant', (rank, 2 + rank))['step'] for rank in (0, 1)]
    assert alone[0] < alone[1] == first['quant']['step']
    alone = [state_after('hdkd', (rank,)) for rank in (0, 1)]
    assert not torch.equal(alone[0]['partition.centroids'], alone[1]['partition.centroids'])
