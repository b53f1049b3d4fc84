"""Two processes, each with its part of a batch: what is gathered, and what stays the same on both."""

import pytest
import torch
from torch import distributed, multiprocessing

from mmkd.functional.gather import all_gather_rows
from mmkd.methods.cckd import CCKD
from mmkd.methods.crd import CRD
from mmkd.methods.darkrank import DarkRank
from mmkd.methods.gkd import GKD
from mmkd.methods.information_flow import InformationFlow
from mmkd.methods.irg import IRG
from mmkd.methods.pkt import PKT
from mmkd.methods.rkd import RKD
from mmkd.methods.sp import SP
from mmkd.methods.triplet_distillation import TripletDistillation
from mmkd.testing import class_labels, make_trace, ready

LOSSES = {
    'RKD': RKD,
    'IRG': lambda *taps, **options: IRG(*taps, vertex=0, transform=0, **options),
    'GKD': GKD,
    'SP': SP,
    'PKT': PKT,
    'CCKD': CCKD,
    'DarkRank': DarkRank,
    'InformationFlow': InformationFlow,
    'TripletDistillation': TripletDistillation,
}
HALVES = slice(0, 4), slice(4, 8)
LABELS = torch.arange(8) % 3


def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 4, generator=generator), torch.rand(8, 6, generator=generator)


def loss_of(objective, part):
    student, teacher = (x[part] for x in rows())
    samples = [class_labels(LABELS)[i] for i in range(8)[part]]
    trace = make_trace({'x': student}, {'x': teacher}, samples=samples)
    torch.manual_seed(0)
    return sum(ready(objective, trace)(trace).values())


def memories(parts):
    """State and losses of a CRD that saw these batches one after the other."""
    torch.manual_seed(0)
    objective = CRD('x', size=8, negatives=5, dim=3)
    losses = [float(loss_of(objective, part).detach()) for part in parts]
    return {k: v.clone() for k, v in objective.named_buffers()}, losses


def everything(rank):
    own = HALVES[rank]
    x = torch.arange(6.0).view(3, 2)[: 1 + rank].requires_grad_()  # unequally many rows
    gathered = all_gather_rows(x)
    gathered.square().sum().backward()
    double = all_gather_rows(torch.full((2,), rank))
    losses = {
        name: [float(loss_of(make('x', gather=gather), own).detach()) for gather in (True, False)]
        for name, make in LOSSES.items()
    }
    return dict(
        gathered=gathered.detach(), grad=x.grad, long=double, losses=losses, crd=memories([own])
    )


def run(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.save(everything(rank), f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(run, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


def test_rows_of_all_ranks(ranks):
    wanted = torch.tensor([[0.0, 1], [0, 1], [2, 3]])
    for rank, found in enumerate(ranks):
        assert torch.equal(found['gathered'], wanted)
        # Twice the gradient of the sum: averaging over two ranks takes half.
        assert torch.equal(found['grad'], 4 * torch.arange(6.0).view(3, 2)[: 1 + rank])
        assert found['long'].tolist() == [0, 0, 1, 1]
    alone = torch.ones(2, 2)
    assert all_gather_rows(alone) is alone


@pytest.mark.parametrize('name', LOSSES)
def test_gather_compares_images_of_all_ranks(name, ranks):
    whole = float(loss_of(LOSSES[name]('x'), slice(0, 8)).detach())
    halves = [float(loss_of(LOSSES[name]('x'), half).detach()) for half in HALVES]
    for found, alone in zip(ranks, halves, strict=True):
        assert found['losses'][name] == pytest.approx([whole, alone], rel=1e-5)
    assert whole != pytest.approx(halves[0], rel=1e-3)


def test_crd_has_one_memory(ranks):
    (first, losses), (second, others) = (found['crd'] for found in ranks)
    whole, (total,) = memories([slice(0, 8)])
    for key, value in whole.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, msg=key)
    assert (losses[0] + others[0]) / 2 == pytest.approx(total, rel=1e-5)
