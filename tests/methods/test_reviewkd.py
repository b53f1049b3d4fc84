"""ReviewKD: the pyramid of contexts, and the fusion from deep to shallow."""

import pytest
import torch
from torch import nn

from mmkd.methods.reviewkd import Fusion, ReviewKD, hierarchical_context
from mmkd.testing import make_trace, ready


def test_hierarchical_context():
    ramp = (torch.arange(64, dtype=torch.float64) / 64).view(1, 1, 8, 8)
    assert float(hierarchical_context(ramp, torch.zeros_like(ramp))) == (
        pytest.approx(0.3163045, abs=1e-7)
    )
    for size in (1, 2, 3, 4, 5, 9):
        x = torch.zeros(2, 3, size, size + 1)
        assert float(hierarchical_context(x + 0.5, x)) == pytest.approx(0.25)


def test_has_the_published_number_of_parameters():
    widths, mid = [64, 128, 256, 256], 256
    fusions = [Fusion(w, mid, w, fuse=k < 3) for k, w in enumerate(widths)]
    assert sum(p.numel() for f in fusions for p in f.parameters()) == 1_808_774


def test_goes_from_deep_to_shallow():
    torch.manual_seed(0)
    objective = ReviewKD('abc', max_mid=4)
    sizes = (8, 4, 2)
    student = [torch.randn(2, 3 + k, s, s, requires_grad=True) for k, s in enumerate(sizes)]
    teacher = [torch.randn(2, 5 + k, s, s) for k, s in enumerate(sizes)]
    objective = ReviewKD(['a', 'b', 'c'], max_mid=4)
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(
        dict(zip('abc', student, strict=True)), dict(zip('abc', teacher, strict=True))
    )
    ready(objective, trace)
    assert [f.attend is None for f in objective.fusions] == [False, False, True]
    assert objective.fusions[0].reduce[0].out_channels == 4
    first, fused = objective.fusions[2](student[2], None, (2, 2))
    assert first.shape == (2, 7, 2, 2) and fused.shape == (2, 4, 2, 2)
    shallow, _ = objective.fusions[0](student[0], fused, (8, 8))
    gradient = torch.autograd.grad(shallow.sum(), student[2], retain_graph=True)[0]
    assert gradient.any(), 'the deep map takes part in the review of the shallow one'
    assert float(objective(trace)['loss'].detach()) > 0
