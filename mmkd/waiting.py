"""What the first process does alone, while the others wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from torch import distributed as torch_dist

#: nccl ends a process that has waited for ten minutes; a stage of a chain, or another run, may take
#: much longer
LONGEST = timedelta(days=30)
#: all processes as they are connected, and once more, by gloo
_known: tuple[Any, Any] = (None, None)


def of_main(function: Callable[[], Any]) -> Any:
    """The result of rank 0 in all processes, or its exception, however long it takes; collective.

    Args:
        function (Callable): is called on rank 0; its result can be pickled.
    """
    patient = _patient()  # before rank 0 is busy
    found: list[Any] = [None, None]
    if is_main_process():
        try:
            found[0] = function()
        except Exception as error:
            found[1] = error
    broadcast_object_list(found, group=patient)
    if found[1] is not None:
        raise found[1]
    return found[0]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While it lasts, this process takes itself for the only one.

    What the others do not take part in must not wait for them: losses of detectors, SyncBN in
    training and metrics do where processes are connected, and samplers give each a part of the
    data.
    """
    if not torch_dist.is_available():
        yield
        return
    world, torch_dist.group.WORLD = torch_dist.group.WORLD, None
    try:
        yield
    finally:
        torch_dist.group.WORLD = world


def _patient() -> Any:
    """All processes, connected in a way in which waiting does not end; None for a single one."""
    global _known
    if get_world_size() == 1:
        return None
    world = torch_dist.group.WORLD
    if _known[0] is not world:
        _known = world, torch_dist.new_group(backend='gloo', timeout=LONGEST)
    return _known[1]
