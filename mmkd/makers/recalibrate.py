"""Recalibrate: BatchNorm statistics of a network, estimated again on training images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from mmengine.runner import set_random_seed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.chain import Maker, Product
from mmkd.edits import apply_edits
from mmkd.engine.console.screen import current_screen
from mmkd.engine.runner import Runner
from mmkd.makers.networks import load_network, on_gpu, write_network
from mmkd.options import check_list, check_number
from mmkd.registry import MAKERS
from mmkd.untouched import flags_kept, untouched_random_state


@MAKERS.register_module()
class Recalibrate(Maker):
    """A trained network with new BatchNorm statistics: means over batches, not moving averages.

    Weights that were rounded, pruned or merged move the statistics of what they give, so that they
    are estimated again before and after such a network is trained. ``recalibrated.py`` is the
    config of the network alone and ``recalibrated.pth`` its weights, which are unchanged.

    Args:
        batches (int): of the training data with their pipeline; at most one epoch.
        edits (list[dict] | dict): made for the estimation, and not written: statistics of a network
            that is going to be trained with them.

    Raises:
        ValueError: options out of range; not one network; one without BatchNorm statistics.
    """

    def __init__(self, batches: int = 200, edits: Any = ()) -> None:
        self.batches = check_number('Recalibrate', 'batches', batches, 1, whole=True)
        one = isinstance(edits, Mapping)
        self.edits = [edits] if one else check_list('Recalibrate', 'edits', edits)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_network('Recalibrate', given)
        known = list(model.state_dict())
        apply_edits(model, self.edits)
        on_gpu(model)
        with untouched_random_state():
            set_random_seed(0)
            loader = Runner.build_dataloader(config.train_dataloader, seed=0)
            count = estimate(model, islice(loader, self.batches))
        current_screen().say(f'BatchNorm statistics of {count} batches')
        state = model.cpu().state_dict()
        return write_network(work_dir, 'recalibrated', config, {key: state[key] for key in known})


def estimate(model: nn.Module, batches: Iterator[Any]) -> int:
    """Set every BatchNorm's statistics to the means over batches; returns how many there were.

    Everything else is in evaluation mode, and no other weight changes.

    Args:
        batches (Iterator): as a DataLoader gives them.

    Raises:
        ValueError: no BatchNorm that keeps statistics.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise ValueError(
            f'{type(model).__name__} has no BatchNorm that keeps statistics, so there is nothing '
            'to estimate again. Leave this stage out.'
        )
    count = 0
    with flags_kept(model), _cumulative(norms), torch.no_grad():
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for batch in batches:
            data = model.data_preprocessor(batch, True)  # type: ignore[operator]
            model(**data, mode='loss')
            count += 1
    return count


@contextlib.contextmanager
def _cumulative(norms: list[Any]) -> Iterator[None]:
    """All batches count alike, instead of the last ones most."""
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
