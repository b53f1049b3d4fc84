"""k-means with its own random generator, and clusters of the teacher's features."""

from __future__ import annotations

from math import log2
from statistics import fmean, pstdev

import torch
from mmengine.dist import all_reduce, broadcast
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.functional.cells import rows

_TOKENS, _CONTENT = 4096, 16  # cells of the first clustering, numbers for what a cell holds
_SIZE, _PLACE = 1.0, 0.5  # weights of stride and place beside it
_MOMENTUM = 0.99


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid, the lowest of several; (P, D) and (K, D) -> (P,) long."""
    return torch.cdist(x, centroids, compute_mode='donot_use_mm_for_euclid_dist').argmin(1)


@torch.no_grad()
def kmeans(
    x: Tensor,
    k: int,
    seed: int = 0,
    steps: int = 10,
    cosine: bool = False,
    start: Tensor | None = None,
) -> Tensor:
    """Centroids (K, D) of points (P, D) after Lloyd's steps.

    The same on every device: k-means++ draws from a generator of its own, on the CPU.

    Args:
        cosine (bool): points and centroids are brought to length one.
        start (Tensor | None): first centroids (K, D), in place of k-means++.
    """
    x = F.normalize(x.cpu().float()) if cosine else x.cpu().float()
    centroids = seeds(x, k, seed) if start is None else start.cpu().float()
    for _ in range(steps):
        centroids = F.normalize(centroids) if cosine else centroids
        where = F.one_hot(nearest(x, centroids), k).to(x)
        count = where.sum(0)[:, None]
        centroids = torch.where(count > 0, where.T @ x / count.clamp(min=1), centroids)
    return F.normalize(centroids) if cosine else centroids


def seeds(x: Tensor, k: int, seed: int) -> Tensor:
    """k-means++: each further point is drawn by its squared distance from those drawn before."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(x), (1,), generator=generator)
    for _ in range(k - 1):
        far = (x[:, None] - x[chosen]).square().sum(-1).amin(1)
        chosen = torch.cat((chosen, torch.multinomial(far + 1e-12, 1, generator=generator)))
    return x[chosen]


def cluster_means(x: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Means (K, D) and counts (K,) of the points (P, D) of each cluster, over all processes."""
    points = torch.cat((x, x.new_ones(len(x), 1)), 1)
    sums = F.one_hot(labels, k).to(x).T @ points  # a product, since it adds up in a fixed order
    all_reduce(sums)
    return sums[:, :-1] / sums[:, -1:].clamp(min=1), sums[:, -1]


def cluster_correlations(x: Tensor, labels: Tensor, means: Tensor, counts: Tensor) -> Tensor:
    """Pearson correlation of the columns (P, C) within each cluster, (K, C, C).

    Over all processes; constant columns correlate with nothing.

    Args:
        means, counts (Tensor): of :func:`cluster_means`, (K, C) and (K,).
    """
    centred = x - means[labels]
    covariance = torch.stack(
        [(centred * (labels == i)[:, None]).T @ centred for i in range(len(means))]
    )
    all_reduce(covariance)
    covariance = covariance / counts.clamp(min=1)[:, None, None]
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    return covariance / (deviation[:, :, None] * deviation[:, None]).clamp(min=1e-6)


class Partition(nn.Module):
    """Assignment of cells to sub-spaces and of channels to groups, from the teacher alone.

    A cell is a token: its features over their root mean square, in a fixed random projection to
    16 numbers, the standardised log2 of its stride, and its place in the image. The sub-space is
    the nearest of k centroids, which follow their cells slowly. Groups are clusters of the rows of
    the channels' running correlation; they are contiguous before the first ``refresh``.
    """

    def __init__(
        self, channels: int, strides: list[int], k: int, m: int, refresh: int, seed: int
    ) -> None:
        super().__init__()
        self.k, self.m, self.refresh, self.seed = k, m, refresh, seed
        logs = [log2(stride) for stride in strides]
        self.sizes = [(x - fmean(logs)) / (pstdev(logs) or 1) for x in logs]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(channels, _CONTENT, generator=generator)
        basis = torch.linalg.qr(noise).Q.T if channels > _CONTENT else torch.eye(channels)
        groups = torch.arange(channels) * m // channels
        self.register_buffer('projection', basis.contiguous())
        self.register_buffer('centroids', torch.zeros(k, len(basis) + 3))
        self.register_buffer('correlation', torch.zeros(k, channels, channels))
        self.register_buffer('groups', groups.repeat(k, 1))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    def tokens(self, maps: list[Tensor]) -> Tensor:
        """Maps (N, C, H_l, W_l) -> (N, P, D), the cells of all levels one after the other."""
        levels = []
        for x, size in zip(maps, self.sizes, strict=True):
            v, u = (2 * (torch.arange(s, device=x.device) + 0.5) / s - 1 for s in x.shape[2:])
            place = _PLACE * torch.stack(torch.meshgrid(v, u, indexing='ij')[::-1], -1)
            where = F.pad(place, (1, 0), value=_SIZE * size).flatten(0, 1).expand(len(x), -1, -1)
            cells = x.flatten(2).mT
            cells = cells / (cells.square().mean(-1, keepdim=True) + 1e-12).sqrt()
            levels.append(torch.cat((cells @ self.projection.T, where), -1))
        return torch.cat(levels, 1)

    @torch.no_grad()
    def forward(self, maps: list[Tensor], learn: bool) -> Tensor:
        """Sub-space of each cell of the teacher's maps, (N, P) long."""
        tokens, steps = self.tokens(maps).flatten(0, 1), int(self.steps)
        if steps == 0:
            self.centroids.copy_(self._first_centroids(tokens))
        labels = nearest(tokens, self.centroids)
        if learn:
            self._follow(tokens, rows(maps, maps[0].shape[1]).flatten(0, 1), labels)
            self.steps += 1
            if (steps + 1) % self.refresh == 0:
                self._regroup(anew=steps < self.refresh)
        return labels.view(len(maps[0]), -1)

    def _first_centroids(self, tokens: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(tokens), generator=generator)[:_TOKENS].to(tokens.device)
        centroids = kmeans(tokens[chosen], self.k, self.seed).to(tokens)
        broadcast(centroids, 0)
        return centroids

    def _follow(self, tokens: Tensor, cells: Tensor, labels: Tensor) -> None:
        """Move centroids and correlations towards those of this batch, over all processes."""
        means, counts = cluster_means(torch.cat((tokens, cells), 1), labels, self.k)
        means, features = means.split((tokens.shape[1], cells.shape[1]), 1)
        share = (1 - _MOMENTUM) * (counts > 0)[:, None]
        self.centroids.lerp_(means, share)
        found = cluster_correlations(cells, labels, features, counts)
        self.correlation.lerp_(found, share[..., None])

    def _regroup(self, anew: bool) -> None:
        """Cluster the channels of each sub-space; later on from the groups that there are."""
        for groups, rows_of in zip(self.groups, self.correlation, strict=True):
            unit = F.normalize(rows_of.cpu())
            start = None if anew else F.one_hot(groups.cpu(), self.m).float().T @ unit
            found = nearest(unit, kmeans(unit, self.m, self.seed, cosine=True, start=start))
            groups.copy_(found)
