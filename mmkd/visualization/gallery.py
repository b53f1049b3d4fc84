"""Predictions of several models side by side, the ground truth first."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from mmkd.pixels import Pixels
from mmkd.visualization import canvas
from mmkd.visualization.outcome import outcome_panel, truth_panel
from mmkd.visualization.page import legend
from mmkd.visualization.shown import Shown, restore
from mmkd.visualization.viewer import build_dataset

WIDTH, COLUMNS = 320, 4  # of a gallery's picture in pixels, and pictures in a line


@torch.no_grad()
def predict(model: nn.Module, dataset: Any, indices: Sequence[int]) -> list[Any]:
    """A model's data samples with predictions, of some images of a test dataset."""
    model.eval()
    return [model.test_step(pseudo_collate([dataset[i]]))[0] for i in indices]


def comparison(
    shown: Sequence[Shown], results: Mapping[str, Sequence[Any]], threshold: float = 0.4
) -> np.ndarray:
    """A row for each image: ground truth, then the predictions of each named model."""
    rows = []
    for index, one in enumerate(shown):
        panels = [outcome_panel(one, r[index], name, threshold) for name, r in results.items()]
        rows.append(canvas.beside([truth_panel(one), *panels]))
    return canvas.below(rows, 14)


class Gallery:
    """One picture for each of some test images: ground truth and the prediction of every model.

    Args:
        config (Config): whose test set and pipeline are used.
        count (int): images, spread evenly over the test set; all of a smaller one.
        threshold (float): objects of a lower score are left out.
    """

    def __init__(self, config: Config, count: int, threshold: float = 0.3) -> None:
        self.config, self.count, self.threshold = config, count, threshold
        self.dataset: Any = None
        self.indices: list[int] = []
        self.shown: list[Shown] = []
        self.panels: list[list[np.ndarray]] = []

    def add(self, name: str, model: nn.Module) -> None:
        """Let a model predict, and keep the pictures alone."""
        if self.dataset is None:
            self._open(model)
        results = predict(model, self.dataset, self.indices)
        for one, panels, result in zip(self.shown, self.panels, results, strict=True):
            panels.append(outcome_panel(one, result, name, self.threshold, WIDTH))

    @torch.no_grad()
    def _open(self, model: Any) -> None:
        """Choose the images, and draw their annotations on what the first model sees."""
        init_default_scope(self.config.get('default_scope') or 'mmengine')
        self.dataset = build_dataset(copy.deepcopy(self.config), 'test')
        total = len(self.dataset)
        count = min(self.count, total)
        self.indices = [i * total // count for i in range(count)]
        for index in self.indices:
            data = model.data_preprocessor(pseudo_collate([self.dataset[index]]), False)
            batch = data['inputs'], data['data_samples']
            self.shown += restore(*batch, Pixels.of(model), self.dataset.metainfo)
        self.panels = [[truth_panel(one, WIDTH)] for one in self.shown]

    def save(self, folder: str | Path) -> list[Path]:
        """Write one PNG for each image; returns their paths."""
        paths = []
        for index, one, panels in zip(self.indices, self.shown, self.panels, strict=True):
            lines = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
            rows = [canvas.beside(line) for line in lines]
            if 'gt_sem_seg' in one.sample and one.classes:
                rows.append(legend(one, rows[0].shape[1]))
            stem = one.name.rpartition('.')[0] or one.name
            picture = canvas.framed(canvas.below(rows, 14))
            paths.append(canvas.save(picture, Path(folder) / f'{index:06d}_{stem}.png'))
        return paths
