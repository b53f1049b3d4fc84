"""k-means, statistics of clusters, and a partition that follows features."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.functional.clustering import (
    Partition,
    cluster_correlations,
    cluster_means,
    kmeans,
    nearest,
    seeds,
)


def test_kmeans_finds_what_is_there():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    x = torch.cat([c + torch.randn(50, 2) for c in centres])
    found = kmeans(x, 3, seed=4)
    assert sorted(nearest(centres, found).tolist()) == [0, 1, 2]
    labels = nearest(x, found)
    for k in range(3):
        torch.testing.assert_close(found[k], x[labels == k].mean(0))
    before = torch.get_rng_state()
    assert torch.equal(kmeans(x, 3, seed=4), found)
    assert torch.equal(torch.get_rng_state(), before)  # the run's random numbers stay
    assert torch.equal(kmeans(x, 3, start=centres), kmeans(x, 3, start=centres, seed=9))
    rays = torch.tensor([[1.0, 0.1], [50, 2], [0.1, 3], [0, 0.2]])
    ray_labels = nearest(F.normalize(rays), kmeans(rays, 2, cosine=True)).tolist()
    assert ray_labels[0] == ray_labels[1] != ray_labels[2] == ray_labels[3]
    twice = torch.tensor([[1.0, 1], [1, 1]])
    assert kmeans(twice, 2).isfinite().all()
    assert nearest(torch.zeros(1, 2), torch.tensor([[1.0, 0], [0, 1], [1, 0]])).item() == 0


def test_statistics_of_clusters():
    torch.manual_seed(0)
    x, labels = torch.randn(200, 5) @ torch.randn(5, 5) + 100, torch.arange(200) % 2
    x[:, 4] = 3.0  # constant
    means, counts = cluster_means(x, labels, 3)
    found = cluster_correlations(x, labels, means, counts)
    assert counts.tolist() == [100, 100, 0] and found.isfinite().all()
    for k in (0, 1):
        wanted = torch.corrcoef(x[labels == k][:, :4].double().T)
        torch.testing.assert_close(found[k, :4, :4].double(), wanted, atol=1e-3, rtol=0)
        assert found[k, 4].abs().max() < 0.5


def test_tokens():
    partition = Partition(3, [8, 16], k=2, m=1, refresh=9, seed=0)
    maps = [torch.randn(2, 3, 2, 4), torch.randn(2, 3, 1, 2)]
    tokens = partition.tokens(maps)
    assert tokens.shape == (2, 10, 6)
    f = maps[0][1, :, 1, 2]
    wanted = [*(f / f.square().mean().sqrt()).tolist(), -1.0, 0.5 * 0.25, 0.5 * 0.5]
    assert tokens[1, 4 + 2].tolist() == pytest.approx(wanted, rel=1e-5)
    assert tokens[0, 8, 3:].tolist() == pytest.approx([1.0, 0.5 * -0.5, 0.0])
    assert Partition(3, [8], 2, 1, 9, 0).tokens(maps[:1])[..., 3].eq(0).all()
    wide = Partition(64, [8], 2, 1, 9, 0).projection
    torch.testing.assert_close(wide @ wide.T, torch.eye(16), atol=1e-5, rtol=0)


def test_cells_belong_to_one_space_and_centroids_follow():  # HD-2
    torch.manual_seed(0)
    partition = Partition(4, [8], k=3, m=2, refresh=100, seed=0)
    maps = [torch.randn(2, 4, 6, 6)]
    labels = partition(maps, learn=False)
    assert labels.shape == (2, 36) and set(labels.flatten().tolist()) == {0, 1, 2}
    first = partition.centroids.clone()
    assert partition.steps == 0 and partition.correlation.abs().sum() == 0
    assert torch.equal(partition(maps, learn=True), labels)
    tokens = partition.tokens(maps).flatten(0, 1)
    means = torch.stack([tokens[labels.flatten() == k].mean(0) for k in range(3)])
    torch.testing.assert_close(partition.centroids, 0.99 * first + 0.01 * means)
    other = [torch.randn(2, 4, 6, 6)]
    partition.centroids[2] += 50  # nothing is near it any more
    far = partition.centroids[2].clone()
    partition(other, learn=True)
    assert torch.equal(partition.centroids[2], far) and partition.steps == 2
    assert not torch.equal(partition.centroids[0], first[0])


def test_channels_that_move_together_become_a_group():
    torch.manual_seed(0)
    partition = Partition(6, [8], k=1, m=3, refresh=5, seed=0)
    assert partition.groups.tolist() == [[0, 0, 1, 1, 2, 2]]
    for step in range(12):
        base = torch.randn(2, 3, 8, 8)
        maps = torch.cat((base, base), 1) + 0.1 * torch.randn(2, 6, 8, 8)
        partition([maps], learn=True)
        if step == 4:
            found = partition.groups[0].tolist()
    assert found[:3] == found[3:] and len(set(found)) == 3
    assert partition.groups[0].tolist() == found  # names stay, since omega belongs to them


def test_first_centroids_are_points_far_from_each_other():
    """Of two heaps far apart k-means++ takes one point each, whatever the seed."""
    x = torch.cat((torch.randn(50, 2), 1e3 + torch.randn(3, 2)))
    for seed in range(10):
        found = seeds(x, 2, seed)
        assert all((x == point).all(1).any() for point in found)
        assert (found[0] - found[1]).norm() > 900
    assert torch.equal(seeds(x, 4, 3), seeds(x, 4, 3))
    assert len(seeds(torch.ones(5, 2), 3, 0)) == 3, 'points that are all alike'
