"""What a GPU's kernels are called with: torchvision's signatures, played by plain torch.

Where torchvision loads, its own kernels for a CPU are called, too.
"""

import mmcv.ops
import pytest
import torch
from roi_toys import ROIS, SCALE, maps

from mmkd.operators import OperatorMissing, deform_conv, nms, roi_align, vision
from mmkd.operators.deform_conv import Geometry, convolve
from mmkd.operators.grid import Grid

plain_nms = nms.nms


class Stand:
    """Operators with the signatures of ``torch.ops.torchvision``; counts its calls."""

    def __init__(self):
        self.calls = []

    def nms(self, dets, scores, iou_threshold):
        self.calls.append('nms')
        assert dets.dtype == scores.dtype
        with pytest.MonkeyPatch.context() as plain:
            plain.setattr(nms, 'gpu_kernels', lambda tensor: None)
            return plain_nms(dets, scores, iou_threshold, 0)

    def roi_align(self, input, rois, spatial_scale, height, width, sampling_ratio, aligned):
        self.calls.append('roi_align')
        assert input.dtype == rois.dtype
        return roi_align.average(
            input, rois, Grid(height, width, spatial_scale, sampling_ratio, aligned)
        )

    def _roi_align_backward(
        self, grad, rois, scale, height, width, batch, channels, rows, columns, ratio, aligned
    ):
        self.calls.append('_roi_align_backward')
        assert grad.dtype == rois.dtype
        grid = Grid(height, width, scale, ratio, aligned)
        return roi_align.average_gradient(grad, rois, (batch, channels, rows, columns), grid)

    def deform_conv2d(
        self, input, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use
    ):
        self.calls.append('deform_conv2d')
        geometry = Geometry((sh, sw), (ph, pw), (dh, dw), groups, offset_groups)
        with pytest.MonkeyPatch.context() as plain:
            plain.setattr(deform_conv, 'gradient_kernels', lambda tensor: None)
            out = convolve(input, offset, mask if use else None, weight, geometry)
        return out + bias[:, None, None]


def kernels():
    stands = [Stand()]
    if not vision.torchvision_problem():
        stands.append(torch.ops.torchvision)
    return stands


@pytest.fixture(params=kernels(), ids=lambda kernels: type(kernels).__name__)
def on_gpu(own, request, monkeypatch):
    """``on_gpu(call)``: the result as a GPU computes it."""

    def run(call):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nms, 'gpu_kernels', lambda tensor: request.param)
            for module in (roi_align, deform_conv):
                patch.setattr(module, 'gradient_kernels', lambda tensor: request.param)
            result = call()
        if isinstance(request.param, Stand):
            assert request.param.calls
            request.param.calls.clear()
        return result

    return run


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_nms(on_gpu, dtype, offset):
    corners = torch.randint(0, 40, (60, 2)).to(dtype)
    boxes = torch.cat([corners, corners + torch.randint(0, 20, (60, 2)).to(dtype)], 1)
    scores = torch.randperm(60).float()

    def call():
        return mmcv.ops.nms(boxes, scores, 0.3, offset)[1]

    assert on_gpu(call).tolist() == call().tolist()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(on_gpu, ratio, aligned, dtype):
    x = maps(dtype)

    def call():
        out = mmcv.ops.roi_align(x, ROIS.to(dtype), (3, 2), SCALE, ratio, 'avg', aligned)
        return out, torch.autograd.grad(out, x, torch.linspace(-1, 1, out.numel()).view_as(out))[0]

    found, wanted = on_gpu(call), call()
    assert [part.dtype for part in found] == [dtype, dtype]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('modulated', [False, True])
def test_deform_conv(on_gpu, modulated):
    kind = mmcv.ops.ModulatedDeformConv2d if modulated else mmcv.ops.DeformConv2d
    layer = kind(4, 4, (3, 2), (2, 1), (1, 0), (1, 2), groups=2, deform_groups=2, bias=modulated)
    size = torch.nn.Conv2d(4, 1, (3, 2), (2, 1), (1, 0), (1, 2))(torch.ones(2, 4, 6, 7)).shape[2:]
    inputs = [torch.randn(2, 4, 6, 7), torch.randn(2, 24, *size), torch.rand(2, 12, *size)]
    leaves = [x.requires_grad_() for x in inputs[: 2 + modulated]]

    def call():
        out = layer(*leaves)
        return out, *torch.autograd.grad(out.square().sum(), [*leaves, *layer.parameters()])

    torch.testing.assert_close(on_gpu(call), call(), rtol=1e-4, atol=1e-5)


class OnGpu:
    device = torch.device('cuda')


def test_a_gpu_needs_torchvision(monkeypatch):
    monkeypatch.setattr(vision, 'torchvision_problem', lambda: 'No module named torchvision')
    with pytest.raises(OperatorMissing, match='a GPU needs torchvision.*pip install torchvision'):
        vision.gpu_kernels(OnGpu())
    assert vision.gpu_kernels(torch.ones(1)) is None


def test_where_torch_has_to_be_deterministic_plain_torch_adds_up(monkeypatch):
    monkeypatch.setattr(vision, 'torchvision_problem', lambda: '')
    before = torch.are_deterministic_algorithms_enabled()  # a run of an earlier test may have asked
    try:
        for deterministic, kernels in ((False, torch.ops.torchvision), (True, None)):
            torch.use_deterministic_algorithms(deterministic)
            assert vision.gradient_kernels(OnGpu()) is kernels
            assert vision.gpu_kernels(OnGpu()) is torch.ops.torchvision
    finally:
        torch.use_deterministic_algorithms(before)
