"""Some channels of maps, vectors and tokens, as a file lists them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from mmkd.functional.device import upload
from mmkd.names import no_file


def read_channels(file: str) -> tuple[int, ...]:
    """The ``channels`` in a JSON file, numbers from 0.

    Raises:
        ValueError: there is no such file, or no such list in it.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"{no_file(file, '.json')} 'pool{{}}' is all channels; mmkd make Neurons writes a file "
            'of some.'
        )
    try:
        found = tuple(int(channel) for channel in json.loads(path.read_text())['channels'])
    except (ValueError, KeyError, TypeError):
        found = ()
    if not found or len({*found}) < len(found) or min(found) < 0:
        raise ValueError(f'{file} must hold {{"channels": [3, 17, 4]}}, numbers from 0, each once.')
    return found


def keep_channels(tensor: Tensor, channels: tuple[int, ...]) -> Tensor:
    """These channels of a map (N, C, H, W), a vector (N, C) or tokens (N, L, C).

    Raises:
        ValueError: fewer channels than that.
    """
    dim = 1 if tensor.dim() == 4 else tensor.dim() - 1
    if max(channels) >= tensor.shape[dim]:
        raise ValueError(
            f'channel {max(channels)} is to be kept, but there are {tensor.shape[dim]}, counted '
            'from 0. Is the file that of another network?'
        )
    return tensor.index_select(dim, upload(channels, tensor, torch.long))
