"""Work on a CUDA stream of its own, beside the current one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class SideStream:
    """A CUDA stream whose work starts behind what the current stream has been given so far.

    Tensors cross over in two places only: those that are read, when the work begins, and those
    that are made, at :meth:`join`. The allocator is told of both, so that no memory is used again
    while the other stream still works on it.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @contextlib.contextmanager
    def after(self, read: Iterable[Tensor]) -> Iterator[None]:
        """Inside, work goes to this stream, behind what made the tensors that are read."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        for tensor in read:
            tensor.record_stream(self.stream)
        with torch.cuda.stream(self.stream):
            yield

    def join(self, made: Iterable[Tensor]) -> None:
        """Let the current stream, not this process, wait for the work, and use what it made."""
        current = torch.cuda.current_stream(self.stream.device)
        current.wait_stream(self.stream)
        for tensor in made:
            tensor.record_stream(current)


def has_streams(tensor: Tensor) -> bool:
    """Whether work on a tensor is given to streams."""
    return tensor.is_cuda
