"""Groups of processes of one launch, each of them a distributed run of its own.

torch's world of a process is its group: gradients, samplers, evaluation and files are those of an
ordinary run of so many processes. Between groups there are the store of the launch, for words, and
a gloo connection of the first processes, for tensors.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import broadcast, is_distributed, is_main_process
from torch import Tensor
from torch import distributed as torch_dist
from torch.distributed.rendezvous import rendezvous

from mmkd.waiting import of_main

#: seconds for which one group waits for the others
WAIT = 600.0
#: as ``index`` of ``mmkd.Shard``: each group its own
GROUP = 'group'
_PAUSE = 0.02
_current: Groups | None = None
_runs = 0


@dataclass
class Groups:
    """What a process knows of its group and of the others.

    Attributes:
        count (int): how many groups there are.
        index (int): which one is its own, from 0.
        size (int): processes in each.
        store (Store): of the whole launch, for this run.
        link (ProcessGroup | None): of the first processes of all groups, None in any other.
    """

    count: int
    index: int
    size: int
    store: Any
    link: Any = None

    @property
    def others(self) -> list[int]:
        """Numbers of the other groups."""
        return [number for number in range(self.count) if number != self.index]

    def tell(self, what: str, value: Any, wait: float = WAIT) -> list[Any]:
        """Each group's value, in their order; collective, and the same in all processes.

        Args:
            what (str): a name that is used once in a run.
            value (Any): plain JSON, that of the first process.
            wait (float): seconds.

        Raises:
            TimeoutError: a group has not told its own.
        """

        def told() -> list[Any]:
            self.store.set(f'{what}/{self.index}', json.dumps(value))
            keys = [f'{what}/{number}' for number in range(self.count)]
            self._wait(keys, lambda key: self.store.check([key]), what, wait)
            return [json.loads(self.store.get(key)) for key in keys]

        return of_main(told)

    def keep_up(self, iteration: float, wait: float = WAIT) -> None:
        """Wait until every other group has come as far; collective in each group.

        Raises:
            TimeoutError: a group is behind.
        """

        def others_are_there() -> None:
            self.announce(iteration)
            keys = [f'at/{number}' for number in self.others]
            self._wait(keys, lambda key: self._at(key) >= iteration, f'step {iteration + 1}', wait)

        of_main(others_are_there)

    def leave(self, wait: float = WAIT) -> None:
        """End; the first group waits for the others, since its process may hold the store."""

        def left() -> None:
            if self.index:
                self.store.set(f'left/{self.index}', '')
                return
            keys = [f'left/{number}' for number in self.others]
            self._wait(keys, lambda key: self.store.check([key]), 'the end', wait)

        of_main(left)

    def announce(self, iteration: float) -> None:
        """Let the others know how far the first process of this group is."""
        self.store.set(f'at/{self.index}', str(float(iteration)))

    def _at(self, key: str) -> float:
        return float(self.store.get(key)) if self.store.check([key]) else -1.0

    def _wait(self, keys: list[str], done: Callable[[str], bool], what: str, wait: float) -> None:
        begin = time.monotonic()
        for key in keys:
            while not done(key):
                if time.monotonic() - begin > wait:
                    raise TimeoutError(
                        f'group {key.rpartition("/")[2]} has not come to {what!r} within {wait:g} '
                        f'seconds of group {self.index}. Is it stopped, or much slower? Groups '
                        'take equally many steps, and wait for each other at every exchange; '
                        'teacher.wait= waits longer.'
                    )
                time.sleep(_PAUSE)

    @torch.no_grad()
    def exchange(
        self, tensors: list[Tensor], iteration: int, wait: float = WAIT
    ) -> dict[int, list[Tensor]]:
        """The tensors of each other group by its number; collective in all groups.

        Args:
            tensors (list[Tensor]): of this group; those of its first process count. All groups have
                equal shapes and dtypes.
            iteration (int): of all groups.

        Returns:
            dict[int, list[Tensor]]: on the device of ``tensors``.

        Raises:
            TimeoutError: a group does not come.
        """
        if is_main_process():
            self.announce(iteration)
        self.tell(f'the exchange before step {iteration + 1}', 0, wait)
        flat = _as_bytes(tensors)
        device, found = flat.device, {}
        for number in range(self.count):
            mine = number == self.index
            if self.link is not None:
                data = flat.cpu() if mine else torch.empty(len(flat), dtype=torch.uint8)
                options = torch_dist.BroadcastOptions()
                options.rootRank = number
                self.link.broadcast([data], options).wait()
            elif not mine:
                data = torch.empty(len(flat), dtype=torch.uint8)
            if not mine:
                data = data.to(device)
                broadcast(data, src=0)
                found[number] = _from_bytes(data, tensors)
        return found


def _as_bytes(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().contiguous().reshape(-1).view(torch.uint8) for t in tensors])


def _from_bytes(data: Tensor, like: list[Tensor]) -> list[Tensor]:
    sizes = [t.numel() * t.element_size() for t in like]
    parts = data.split(sizes)  # a copy of each starts at a place that suits its dtype
    return [p.clone().view(t.dtype).view(t.shape) for p, t in zip(parts, like, strict=True)]


def current() -> Groups | None:
    """The groups of this launch, None where it is one run."""
    return _current


def group_index() -> int:
    """The number of this process' group; 0 where there are none."""
    return _current.index if _current else 0


def size_of_groups(count: int, world: int) -> int:
    """Processes in each of ``count`` groups of a launch of ``world``.

    Raises:
        ValueError: they cannot be divided evenly.
    """
    if world % count:
        more = world + count - world % count
        raise ValueError(
            f'Neighbours: {world} processes cannot be divided into {count} groups of equal size. '
            f'Start {more} or another multiple of {count}.'
        )
    return world // count


def alone(count: int) -> ValueError:
    """The refusal of a run that is one process, started without a launcher."""
    return ValueError(
        f'Neighbours divides the processes of a launch into {count} groups, but this run is one '
        f'process. Start it as bash tools/dist_train.sh CONFIG {count} (or a multiple). Without a '
        'launcher two runs learn from each other by files, with mmkd.Follower, and two networks '
        'of one run with peers.'
    )


def join(count: int, backend: str, timeout: timedelta | None = None) -> Groups:
    """Connect this process of ``torchrun`` with its group, which is its world from then on.

    Consecutive ranks are one group.

    Raises:
        ValueError: no launch; groups of unequal size; processes that are one world already.
    """
    global _current, _runs
    if 'WORLD_SIZE' not in os.environ:  # --launcher by hand
        raise alone(count)
    size = size_of_groups(count, int(os.environ['WORLD_SIZE']))
    if is_distributed():
        if _current is None or _current.count != count:
            raise ValueError(
                'Neighbours divides the processes of a launch into groups when it starts, but they '
                'are connected already. Train this config alone, not behind other runs.'
            )
        store = _current.store.underlying_store
    else:
        store, _, _ = next(rendezvous('env://', **(dict(timeout=timeout) if timeout else {})))
    _runs += 1
    index, rank = divmod(int(os.environ['RANK']), size)
    prefix, limit = f'mmkd_{_runs}', timeout or timedelta(minutes=30)
    if not is_distributed():
        torch_dist.init_process_group(
            backend,
            store=torch_dist.PrefixStore(f'{prefix}_group_{index}', store),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    link = None
    if rank == 0:
        between = torch_dist.PrefixStore(f'{prefix}_between', store)
        link = torch_dist.ProcessGroupGloo(between, index, count, limit)
    _current = Groups(count, index, size, torch_dist.PrefixStore(prefix, store), link)
    return _current
