"""A queue of each class, first in first out."""

import torch

from mmkd.adapters.queue import Queue


def test_queues_are_first_in_first_out():
    queue = Queue(2, 3, 2)
    torch.testing.assert_close(queue.entries.norm(dim=2), torch.ones(2, 3), atol=1e-4, rtol=0)
    before = queue.entries[0].clone()
    rows = torch.arange(8.0).view(4, 2)
    queue.push(rows, torch.tensor([1, 1, 1, 1]))
    assert torch.equal(queue.entries[0], before), 'another class'
    assert sorted(queue.entries[1, :, 0].tolist()) == [2, 4, 6], 'the oldest goes'
    queue.push(torch.tensor([[9.0, 9.0]]), torch.tensor([0]))
    queue.push(torch.tensor([[8.0, 8.0]]), torch.tensor([0]))
    assert queue.entries[0, :2, 0].tolist() == [9, 8] and int(queue.next[0]) == 2


def test_all_classes_are_drawn_at_the_same_places():
    queue = Queue(3, 10, 2)
    drawn = queue.draw(4, torch.Generator().manual_seed(0)).view(3, 4, 2)
    places = [(queue.entries[0] == row).all(1).nonzero().item() for row in drawn[0]]
    assert len(set(places)) == 4
    assert torch.equal(drawn, queue.entries[:, places])
