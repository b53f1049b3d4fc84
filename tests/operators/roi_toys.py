"""Maps, and RoIs in all the places where they go wrong."""

import torch

SCALE = 0.25
# image, corners: inside, over the edge, outside, without size, a line, tiny, everything
ROIS = torch.tensor([
    [0, 4.0, 8.0, 30.0, 21.0],
    [1, -9.0, 20.0, 12.0, 44.0],
    [0, 60.0, 60.0, 90.0, 90.0],
    [1, 10.0, 10.0, 10.0, 10.0],
    [0, 5.0, 6.0, 25.0, 6.0],
    [1, 9.0, 9.0, 9.3, 9.2],
    [0, -20.0, -20.0, 80.0, 60.0],
])  # fmt: skip


def maps(dtype=torch.float32):
    return torch.randn(2, 3, 8, 11, dtype=dtype, requires_grad=True)
