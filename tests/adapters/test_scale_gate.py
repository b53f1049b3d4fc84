"""The gate that fuses maps of two image sizes, with the values of the sheet."""

import pytest
import torch

from mmkd.adapters.scale_gate import ScaleGate

HIGH, LOW = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 1) for x in ([2, 0], [1, 3]))


def gate_of_the_sheet():
    gate = ScaleGate(2, reduction=2).double()
    with torch.no_grad():
        gate.squeeze.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]))
        gate.choose.weight.copy_(torch.tensor([[1.0, -1], [-1, 1]]))
    return gate


def test_values_of_the_sheet():
    gate = gate_of_the_sheet()
    torch.testing.assert_close(
        gate.weights(HIGH, LOW)[0], torch.tensor([0.119203, 0.880797]).double(), atol=1e-6, rtol=0
    )
    fused = gate(HIGH, LOW)
    wanted = torch.tensor([1.119203, 2.642391]).double()
    torch.testing.assert_close(fused.flatten(), wanted, atol=1e-6, rtol=0)
    student = torch.tensor([1.5, 1.0]).double()
    assert float((fused.flatten() - student).abs().mean()) == pytest.approx(1.011594, abs=1e-6)


def test_each_image_has_its_own():
    gate, high = ScaleGate(4), torch.randn(3, 4, 5, 6)
    low = torch.randn(3, 4, 5, 6)
    whole = gate(high, low)
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], gate(high[i : i + 1], low[i : i + 1]))
    assert ScaleGate(4).squeeze.out_features == 1 and ScaleGate(64).squeeze.out_features == 8


def test_pyramids_are_fused_one_level_apart():
    gate = gate_of_the_sheet().float()
    high = [torch.randn(1, 2, 16 // 2**i, 16 // 2**i) for i in range(3)]
    low = [torch.randn(1, 2, 8 // 2**i, 8 // 2**i) for i in range(3)]
    fused = gate.fuse(high, low, 1)
    assert fused[0] is high[0] and len(fused) == 3
    assert torch.equal(fused[1], gate(high[1], low[0]))
    assert torch.equal(fused[2], gate(high[2], low[1]))


def test_unequal_maps_are_refused():
    gate = ScaleGate(2)
    high, low = [torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)], [torch.randn(1, 2, 5, 5)]
    with pytest.raises(ValueError, match='fuses maps of one size from both images'):
        gate.fuse(high, low, 1)
    wide = [torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)], [torch.randn(1, 4, 4, 4)]
    with pytest.raises(ValueError, match='gate of 2 channels'):
        gate.fuse(*wide, 1)
