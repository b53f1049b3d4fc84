"""What rank 0 does for all: its result, its exception, and no end of waiting."""

from datetime import timedelta

import pytest
import torch
from launches import launch
from mmengine.dist import get_world_size
from torch import distributed

from mmkd.functional.gather import mean_over_ranks
from mmkd.waiting import LONGEST, alone, of_main


def test_a_single_process_is_rank_0():
    assert of_main(lambda: 3) == 3
    with pytest.raises(KeyError):
        of_main({}.popitem)


def waits(rank, folder):
    """What both ranks get, the exception among it, and for how long they would wait."""
    distributed.init_process_group('gloo', timeout=timedelta(minutes=2))
    groups, stock = [], distributed.broadcast_object_list
    distributed.broadcast_object_list = lambda *args: groups.append(args[2]) or stock(*args)
    found = [of_main(lambda: [rank])]
    with pytest.raises(KeyError):
        of_main({}.popitem)
    with alone():
        count = get_world_size(), float(mean_over_ranks(torch.ones(()) * rank))
    assert count == (1, rank) and get_world_size() == 2
    cpu = torch.device('cpu')
    return found, {one._get_backend(cpu).options._timeout for one in groups}, len({*groups})


def test_ranks_wait_longer_than_their_connection_does(tmp_path):
    """A maker of a chain takes hours, and nccl ends a process after ten minutes."""
    assert launch(waits, 2, tmp_path / 'launch') == [([[0]], {LONGEST}, 1)] * 2
