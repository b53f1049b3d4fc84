"""States of the random generators of one process, and generators that leave those alone."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log


def get_state(cuda: bool = False) -> dict:
    """State of this process' generators as plain bytes and numbers (safe to load)."""
    _, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = dict(
        python=np.array(numbers, dtype=np.uint32).tobytes(),
        python_gauss=gauss,
        numpy=np.asarray(keys, dtype=np.uint32).tobytes(),
        numpy_rest=(int(position), int(has_gauss), float(cached)),
        torch=torch.get_rng_state().numpy().tobytes(),
    )
    if cuda and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state().numpy().tobytes()
    return state


def set_state(state: dict) -> None:
    """Undo of :func:`get_state`."""
    numbers = np.frombuffer(state['python'], dtype=np.uint32).tolist()
    random.setstate((3, tuple(numbers), state['python_gauss']))
    keys = np.frombuffer(state['numpy'], dtype=np.uint32)
    np.random.set_state(('MT19937', keys, *state['numpy_rest']))
    torch.set_rng_state(as_tensor(state['torch']))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(as_tensor(state['cuda']))


def is_state(state: Any) -> bool:
    """Whether :func:`get_state` may have given it; with another, NumPy reads beyond its memory."""
    try:
        position, has_gauss, cached = state['numpy_rest']
        sizes = len(state['numpy']), len(state['python'])
        given = (type(position), type(has_gauss), type(cached)) == (int, int, float)
        whole = isinstance(state['torch'], bytes) and 'python_gauss' in state
        return given and whole and sizes == (4 * 624, 4 * 625) and 0 <= position <= 624
    except (KeyError, TypeError, ValueError):
        return False


def snapshot() -> tuple:
    """The same in the libraries' own forms: not for files, but taken in microseconds."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def rewind(states: tuple) -> None:
    """Undo of :func:`snapshot`."""
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)


class Stream:
    """Random streams of its own for code that must not move those of the process.

    ``with stream:`` lets python, NumPy and torch draw from it; afterwards they go on as before. Its
    seed is drawn from torch's stream, so streams that are made one after the other differ.
    """

    def __init__(self) -> None:
        seed = int(torch.randint(2**31, ()))
        self._outer: list[tuple] = []
        self.states = snapshot()
        with self:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)

    def __enter__(self) -> Stream:
        self._outer.append(snapshot())
        rewind(self.states)
        return self

    def __exit__(self, *error: Any) -> None:
        self.states = snapshot()
        rewind(self._outer.pop())

    def state_dict(self) -> dict:
        """As :func:`get_state` gives it, for files."""
        with self:
            return get_state(cuda=True)

    def load_state_dict(self, state: dict) -> None:
        with self:
            set_state(state)


def torch_state() -> bytes:
    """State of torch's generator of the CPU, from which samplers and data workers are seeded."""
    return torch.get_rng_state().numpy().tobytes()


def as_tensor(raw: bytes) -> torch.Tensor:
    """The state in the form that torch needs."""
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def step_generator(
    seed: int, iteration: int, number: int | None = None, device: torch.device | str = 'cpu'
) -> torch.Generator:
    """A generator for one step, which depends on these numbers alone and moves no other one.

    So what is drawn is the same after a resume, and does not depend on what else draws.

    Args:
        number (int | None): what tells apart several generators of a step, for instance the number
            of an image; None is the rank, so that processes draw unlike numbers.
    """
    number = get_rank() if number is None else number
    mixed = (seed * 1_000_003 + iteration) * 1_000_003 + number
    return torch.Generator(device).manual_seed(mixed % 2**63)


def warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
