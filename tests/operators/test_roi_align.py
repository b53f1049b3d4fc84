"""RoIAlign against a loop over points, compiled operators and finite differences."""

import mmcv.ops
import pytest
import torch
from operator_loops import roi_align
from roi_toys import ROIS, SCALE, maps

from mmkd.operators import roi_align as own


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_values_and_gradients(both, mode, ratio, aligned, dtype):
    x, rois = maps(dtype), ROIS.to(dtype)
    seed = torch.randn(len(rois), 3, 3, 2, dtype=dtype)

    def results():
        out = mmcv.ops.roi_align(x, rois, (3, 2), SCALE, ratio, mode, aligned)
        return out, torch.autograd.grad(out, x, seed)[0]

    found, others = both(results)
    out = roi_align(x, rois, (3, 2), SCALE, ratio, ['max', 'avg'].index(mode), aligned)
    for wanted in ((out, torch.autograd.grad(out, x, seed)[0]), *others):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_gradients_by_finite_differences(own, mode):
    assert torch.autograd.gradcheck(
        lambda x: mmcv.ops.roi_align(x, ROIS.double(), (2, 2), SCALE, 2, mode, True),
        maps(torch.float64),
        fast_mode=True,
    )


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_no_rois(both, mode):
    x = maps()

    def results():
        out = mmcv.ops.roi_align(x, ROIS[:0], (3, 2), SCALE, 0, mode, True)
        return out, torch.autograd.grad(out.sum(), x)[0]

    (out, gradient), _ = both(results)
    assert out.shape == (0, 3, 3, 2) and not gradient.any()


def test_more_rois_than_a_chunk(both, monkeypatch):
    x, rois = maps(), ROIS.repeat(3, 1)
    rois[:, 1:] += torch.arange(len(rois))[:, None] / 7
    found, others = both(lambda: mmcv.ops.roi_align(x, rois, (3, 2), SCALE, 0, 'avg', True))
    monkeypatch.setattr(own, 'CHUNK', 4)
    chunked, _ = both(lambda: mmcv.ops.roi_align(x, rois, (3, 2), SCALE, 0, 'avg', True))
    for wanted in (found, *others):
        torch.testing.assert_close(chunked, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_low_precision_is_float32_rounded_once(own, mode, dtype):
    x = maps().detach().to(dtype)
    found = mmcv.ops.roi_align(x, ROIS.to(dtype), (3, 2), SCALE, 2, mode, True)
    wanted = mmcv.ops.roi_align(x.float(), ROIS.to(dtype).float(), (3, 2), SCALE, 2, mode, True)
    assert found.dtype == dtype and torch.equal(found, wanted.to(dtype))


def test_amp_does_not_change_the_precision(own):
    x = maps().detach()
    wanted = mmcv.ops.roi_align(x, ROIS, (3, 2), SCALE, 2, 'avg', True)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(mmcv.ops.roi_align(x, ROIS, (3, 2), SCALE, 2, 'avg', True), wanted)


@pytest.mark.parametrize(
    'corners', [[9.0, 9, 3, 12], [0, 0, float('nan'), 4], [0, 0, 4, float('inf')]]
)
def test_boxes_that_are_none_are_refused(own, corners):
    with pytest.raises(ValueError, match='negative size, or one that is not finite'):
        mmcv.ops.roi_align(maps(), torch.tensor([[0, *corners]]), (3, 2), 1.0, 0, 'avg', True)
