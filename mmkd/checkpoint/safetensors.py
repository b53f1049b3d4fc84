"""Files of the safetensors format: tensors and their names, nothing that could run."""

from __future__ import annotations

from typing import Any

import torch

from mmkd.checkpoint.checkpoint_error import CheckpointError, damage


def read_safetensors(path: str, map_location: Any = 'cpu') -> dict[str, torch.Tensor]:
    """Weights by name, on the device of ``map_location`` if it is one, else on the CPU.

    Raises:
        CheckpointError: the file is damaged, or the package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f'{path} is a safetensors file, and the package that reads it is not installed. Run '
            "pip install safetensors, or pip install 'mmkd[safetensors]'."
        ) from None
    try:
        weights = load_file(path, 'cpu')
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(damage(path, error)) from None
    if isinstance(map_location, (str, torch.device)):
        weights = {name: tensor.to(map_location) for name, tensor in weights.items()}
    return weights
