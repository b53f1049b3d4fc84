"""TransferSet: images made of neighbouring ones, on which a student learns from a teacher."""

from __future__ import annotations

import os.path as osp
from collections import Counter
from collections.abc import Mapping

import mmcv
import torch
from torch import Tensor

from mmkd.chain import Maker, Product
from mmkd.chain.product import digest, write_json
from mmkd.engine.console.screen import current_screen
from mmkd.families import classifier
from mmkd.makers.networks import given_classifier, on_gpu
from mmkd.makers.pictures import seen_by
from mmkd.makers.pool import Pool
from mmkd.options import check_number
from mmkd.registry import MAKERS
from mmkd.tap import parse_taps
from mmkd.teacher import Teacher

BATCH = 256


def nearest_others(features: Tensor) -> Tensor:
    """The nearest other row of each of (N, D), (N,) long; of equally near ones the first."""
    found = []
    for start in range(0, len(features), BATCH):
        part = features[start : start + BATCH]
        distance = torch.cdist(part, features, compute_mode='donot_use_mm_for_euclid_dist')
        distance[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        found.append(torch.from_numpy(distance.numpy().argmin(1)))
    return torch.cat(found)


def cells_taken(grid: int, share: float, draw: torch.Generator) -> Tensor:
    """Which cells of a grid come from the neighbour, each with this probability: (g, g) bool."""
    return torch.rand(grid, grid, generator=draw) < share


def patched(image: Tensor, other: Tensor, taken: Tensor) -> Tensor:
    """An image (3, H, W) with the cells (g, g) of another of its size."""
    size = image.shape[1:]
    rows, columns = (torch.arange(side) * len(taken) // side for side in size)
    return torch.where(taken[rows][:, columns], other, image)


@MAKERS.register_module()
class TransferSet(Maker):
    """Images for compression by pseudo labels: each with cells of its nearest neighbour.

    Bucilua, Caruana and Niculescu-Mizil, KDD 2006: a small network learns what a large one says of
    a synthetic set. Their MUNGE exchanges attributes of an example and its nearest neighbour. This
    is a form of it for images: a grid of cells, of which each is taken with a probability from the
    neighbour in the embedding of the stage's ``teacher=``. Images without labels from the field are
    nearly always better where there are some; those need no maker, but ``mmkd.ImageFolder``.

    ``manifest.json`` lists the images with their two sources and SHA-256 sums, for
    ``mmkd.ImageFolder(manifest=…)``. Probabilities are asked in training, not stored. Cells have
    hard borders, so train with crops.

    Args:
        config (str): the images: its training set under the pipeline of its validation.
        copies (int): images that are made of each.
        share (float): probability of a cell, p.
        grid (int): cells on a side.
        seed (int): of the cells.

    Raises:
        ValueError: no teacher, or no classifier; options out of range; fewer than two images, or
            of unequal sizes, or of fewer pixels on a side than cells.
    """

    def __init__(
        self, config: str, copies: int = 4, share: float = 0.3, grid: int = 4, seed: int = 0
    ) -> None:
        self.config = config
        self.copies = check_number('TransferSet', 'copies', copies, 1, whole=True)
        self.share = check_number('TransferSet', 'share', share, 0, 1)
        self.grid = check_number('TransferSet', 'grid', grid, 1, whole=True)
        self.seed = check_number('TransferSet', 'seed', seed, 0, 2**63 - 1, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        teacher = given_classifier('TransferSet', given)
        pool = Pool('TransferSet', self.config)
        if len(pool) < 2:
            raise ValueError(
                f'TransferSet: {self.config} has {len(pool)} images, but each needs a neighbour. '
                'Name a config with more.'
            )
        images = torch.stack([pool.image(i) for i in range(len(pool))])
        if min(images.shape[2:]) < self.grid:
            raise ValueError(
                f'TransferSet: grid={self.grid} has more cells on a side than an image of '
                f'{tuple(images.shape[2:])} has pixels. Lower grid.'
            )
        features, said = embeddings(teacher, images)
        names = [pool.names[i] if pool.names else str(i) for i in said.tolist()]
        shares = {name: f'{count / len(said):.1%}' for name, count in Counter(names).most_common()}
        current_screen().say(f'TransferSet: the teacher sees in {len(said)} images {shares}')
        entries = self._write(images, nearest_others(features), work_dir)
        path = osp.join(work_dir, 'manifest.json')
        write_json(path, dict(files=entries, share=self.share, grid=self.grid, seed=self.seed))
        return Product('', path, work_dir, dict(images=len(entries)))

    def _write(self, images: Tensor, others: Tensor, work_dir: str) -> list[dict]:
        draw = torch.Generator().manual_seed(self.seed)
        entries = []
        for copy in range(self.copies):
            for place, other in enumerate(others.tolist()):
                taken = cells_taken(self.grid, self.share, draw)
                pixels = patched(images[place], images[other], taken).permute(1, 2, 0).numpy()
                file = f'images/{place}_{copy}.png'
                path = osp.join(work_dir, file)
                mmcv.imwrite(pixels, path)
                entries.append(dict(file=file, image=place, neighbour=other, sha256=digest(path)))
        return entries


@torch.no_grad()
def embeddings(teacher: Teacher, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features (N, D) and predicted classes (N,) of images (N, 3, H, W), uint8 BGR."""
    taps = parse_taps([classifier.embedding_tap(teacher.model), classifier.LOGITS])
    on_gpu(teacher).set_taps(taps)
    features, said = [], []
    for part in images.split(BATCH):
        side = seen_by(teacher, part)
        features.append(side[taps[0]][0].flatten(1).cpu())
        said.append(side[taps[1]][0].argmax(1).cpu())
    return torch.cat(features), torch.cat(said)
