"""What predictions of a teacher and its student cost here, and how large their files are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmkd.analysis.comparison import Entry
from mmkd.analysis.prediction_cost import LATENCY, MACS, PARAMETERS, PredictionCosts

FILE = 'file size (MB)'
ORDER = (PARAMETERS, MACS, LATENCY, FILE)


def costs_of(entries: Mapping[str, Entry], config: Config) -> dict[str, Any]:
    """Parameters, MACs and latency of each network on the first validation image; file size.

    Args:
        entries (dict[str, Entry]): networks with their weights.
        config (Config): of the run whose validation set is predicted.

    Returns:
        dict: ``costs``, by network and cost; ``notes``, sentences on how they were measured.
    """
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):
        dataset = DATASETS.build(config.val_dataloader.dataset)
        measured, sizes = PredictionCosts(), {}
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        for name, entry in entries.items():
            model = entry.built(name, scope)
            sizes[name] = file_size(model) / 1e6
            measured.add(name, model.eval().to(device), dataset)
        found = measured.measure()
    costs = {name: {**found[name], FILE: sizes[name]} for name in entries}
    return dict(costs=costs, notes=measured.notes())


def file_size(model: nn.Module) -> int:
    """Bytes of the weights and buffers alone, as a file without the optimiser's state has them."""
    return sum(x.numel() * x.element_size() for x in model.state_dict().values())
