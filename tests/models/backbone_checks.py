"""What the tests of CIFAR backbones check alike."""

import copy

import torch

from mmkd.teacher import build_model


def check_size(backbone: dict, size: int) -> None:
    """Parameters for CIFAR-100 with the linear layer, as the benchmarks of the literature count."""
    with torch.device('meta'):
        features = build_model(copy.deepcopy(backbone))
    width = features.preact_norms[-1]
    linear = 100 * (features.get_submodule(width).num_features + 1)
    assert sum(p.numel() for p in features.parameters()) + linear == size


def check_shapes(backbone: dict, shapes: list[tuple[int, int]]) -> None:
    """Widths and sides of the maps of all stages, for 32 x 32 pixels, and of the second alone."""
    images = torch.randn(2, 3, 32, 32)
    maps = build_model(copy.deepcopy(backbone))(images)
    assert [(m.shape[1], m.shape[2]) for m in maps] == shapes
    one = build_model(dict(backbone, out_indices=(1,)))(images)
    assert [m.shape for m in one] == [maps[1].shape]
