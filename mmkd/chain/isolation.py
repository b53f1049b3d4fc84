"""What a run leaves behind in its process, taken back, so that a chain is as good as many runs."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from mmengine.utils import ManagerMixin

from mmkd.untouched import untouched_random_state

_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Take back random states, cudnn's flags, thread counts, and mmengine's global objects."""
    named = {kind: dict(kind._instance_dict) for kind in _named_kinds()}
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    strict = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads(), cv2.getNumThreads()
    variables = {key: os.environ.get(key) for key in _VARIABLES}
    with untouched_random_state():
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = flags
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads[0])
            if cv2.getNumThreads() != threads[1]:  # a forked process waits for the old threads
                cv2.setNumThreads(threads[1])
            for key, value in variables.items():
                os.environ.pop(key, None) if value is None else os.environ.update({key: value})
            for kind in _named_kinds():
                _forget(kind, named.get(kind, {}))
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _named_kinds(base: Any = ManagerMixin) -> Iterator[Any]:
    """Kinds of global objects: loggers, hubs, scopes, and the visualizer of each package."""
    for kind in base.__subclasses__():
        if '_instance_dict' in vars(kind):
            yield kind
        yield from _named_kinds(kind)


def _forget(kind: Any, before: dict) -> None:
    """Drop the objects that came meanwhile; loggers close their files."""
    for name, new in list(kind._instance_dict.items()):
        if name not in before and isinstance(new, logging.Logger):
            for handler in new.handlers:
                handler.close() if isinstance(handler, logging.FileHandler) else None
    kind._instance_dict.clear()
    kind._instance_dict.update(before)
