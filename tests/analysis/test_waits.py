"""Waits for the device, counted on a CPU."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.analysis.waits import WaitCounter

CASES = {
    'item': (1, lambda x: x.sum().item()),
    'bool': (1, lambda x: bool((x > 0).all())),
    'float': (1, lambda x: float(x.mean())),
    'tolist': (1, lambda x: x.tolist()),
    'cpu': (1, lambda x: x.cpu().sum().item()),  # what follows is the processor's
    'numpy': (1, lambda x: x.numpy()),
    'nonzero': (1, lambda x: (x > 0).nonzero()),
    'mask': (1, lambda x: x[x > 0]),
    'unique': (1, lambda x: x.unique()),
    'new_tensor': (1, lambda x: x.new_tensor([1.0])),
    'tensor': (1, lambda x: torch.tensor([1.0], device=x.device)),
    'upload': (1, lambda x: torch.ones(2).to(x.device)),
    'to like': (1, lambda x: torch.ones(2).to(x)),
    'bincount': (1, lambda x: x.long().clamp(min=0).bincount(minlength=4)),
    'filled': (1, lambda x: x.clone().__setitem__(x > 0, x[:1].expand(2))),
    'copied without a wait': (0, lambda x: torch.ones(2).to(x.device, non_blocking=True)),
    'fill': (0, lambda x: x.clone().__setitem__(x > 0, 0.0)),
    'gather': (0, lambda x: x[torch.arange(2, device=x.device)]),
    'one_hot': (0, lambda x: F.one_hot(x.long().clamp(min=0), 4)),
    'shape': (0, lambda x: len(x) * x.shape[0]),
    'processor': (0, lambda x: torch.ones(3).sum().item()),
    'zeros': (0, lambda x: x.new_zeros(3) + torch.zeros(3, device=x.device)),
}


@pytest.mark.parametrize('case', CASES)
def test_counts(case):
    expected, run = CASES[case]
    x = torch.tensor([-1.0, 2.0, 3.0])
    with WaitCounter([x]) as counter:
        run(x)
    assert counter.foreign == expected  # lines of this file are not mmkd's
    assert not counter.count
    assert not counter.places or 'test_waits.py:' in next(iter(counter.places))


MIXTURES = {
    'added': (1, lambda x: x + torch.arange(3)),
    'gathered': (1, lambda x: x.gather(0, torch.arange(2))),
    'a number': (0, lambda x: x * torch.tensor(2.0)),
    'indexed': (0, lambda x: x[torch.arange(2)]),
    'copied': (0, lambda x: x.clone().copy_(torch.arange(3))),
    'sent': (0, lambda x: x + torch.arange(3).to(x.device)),
    'made there': (0, lambda x: x + torch.arange(3, device=x.device)),
    'on the processor': (0, lambda x: torch.ones(3) + torch.arange(3)),
}


@pytest.mark.parametrize('case', MIXTURES)
def test_what_a_gpu_refuses(case):
    expected, run = MIXTURES[case]
    x = torch.tensor([-1.0, 2.0, 3.0])
    with WaitCounter([x]) as counter:
        run(x)
    assert counter.mixed.total() == expected
    assert not expected or 'test_waits.py:' in next(iter(counter.mixed))


def test_results_of_device_tensors_are_the_devices_too():
    x = torch.rand(3)
    with WaitCounter([x]) as counter:
        created = torch.zeros(3, device=x.device)
        bool((x * 2).view(3, 1).sum() > 0), created.tolist(), torch.zeros(3).tolist()
    assert counter.foreign == 2


def test_nothing_is_counted_afterwards_and_values_are_unchanged():
    x = torch.rand(4)
    with WaitCounter([x]) as counter:
        found = (x * 3)[x > 0.5], x.cpu(), x.tolist()
    before = counter.places.total()
    assert torch.equal(found[0], (x * 3)[x > 0.5]) and torch.equal(found[1], x)
    assert found[2] == x.tolist() and counter.places.total() == before
