"""RoI features of a convolved map, against the map convolved as a whole."""

import pytest
import torch

from mmkd.adapters import ConvAdapter
from mmkd.functional import convolved_crops
from mmkd.functional.boxes import by_level_and_image, roi_features
from mmkd.functional.convolved_crops import adapted_crops, interpolation

STRIDES = [4, 8]
#: inside, at a corner of the map, beyond its edges, far outside
BOXES = [[3.0, 5, 30, 21], [0, 0, 12, 9], [-9, -7, 20, 30], [20, 30, 48, 44], [400, 400, 440, 430]]


def pyramid():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, 40 // s, 48 // s, generator=generator).requires_grad_() for s in STRIDES
    ]


def sorted_rois(boxes):
    rois = [[image, *box] for box in boxes for image in (1.0, 0.0)]
    rois += [[1.0, 0, 0, 300, 200]] if boxes else []
    rois = torch.tensor(rois).view(-1, 5)
    order, sizes = by_level_and_image(rois, torch.ones(len(rois), dtype=bool), STRIDES, 2)
    return rois[order], sizes


@pytest.mark.parametrize(
    'options',
    [dict(kernel=1), dict(kernel=3), dict(kernel=5, bias=False), dict(norm=True), dict(relu=True)],
)
@pytest.mark.parametrize('boxes', [BOXES, BOXES[:1], []])
def test_values_and_gradients_are_those_of_the_whole_map(monkeypatch, options, boxes):
    monkeypatch.setattr(convolved_crops, 'CELLS_A_ROW', 0)
    torch.manual_seed(0)
    adapter = ConvAdapter(3, 4, **options).eval()
    maps, (rois, sizes) = pyramid(), sorted_rois(boxes)
    levels = list(zip(STRIDES, maps, strict=True))
    found = adapted_crops(adapter, levels, rois, sizes, 5, 2)
    wanted = roi_features(maps, STRIDES, rois, 5, 2, adapter)
    assert found.shape == wanted.shape == (len(rois), 4, 5, 5)
    torch.testing.assert_close(found, wanted)
    leaves = [*maps, *adapter.parameters()]
    weights = torch.randn(found.shape)
    gradients = [
        torch.autograd.grad((x * weights).sum(), leaves, allow_unused=True) for x in (found, wanted)
    ]
    for own, other in zip(*gradients, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other)


def test_without_an_adapter_maps_are_read_as_they_are():
    maps, (rois, sizes) = pyramid(), sorted_rois(BOXES)
    found = adapted_crops(None, list(zip(STRIDES, maps, strict=True)), rois, sizes, 5, 2)
    assert torch.equal(found, roi_features(maps, STRIDES, rois, 5, 2))


def test_the_smaller_of_what_rois_read_and_the_map_is_convolved():
    adapter, maps = ConvAdapter(3, 4, kernel=3), pyramid()
    seen = []
    adapter.conv.register_forward_hook(lambda *_: seen.append('whole map'))
    for boxes, wanted in ((BOXES[:1], []), (BOXES, 2 * ['whole map'])):  # 75 and 275 bins
        rois, sizes = sorted_rois(boxes)
        adapted_crops(adapter, list(zip(STRIDES, maps, strict=True)), rois, sizes, 5, 2)
        assert seen == wanted, 'of 300 cells'


def test_a_bin_reads_its_points_and_their_neighbours():
    low, high = torch.tensor([1.0]), torch.tensor([3.0])
    found = interpolation(low, high, 6, 1, 1, 3)
    wanted = torch.zeros(1, 1, 3, 6)
    wanted[0, 0, 0, 1] = wanted[0, 0, 1, 2] = wanted[0, 0, 2, 3] = 1.0
    assert torch.equal(found, wanted)
    at_the_edge = interpolation(torch.tensor([-0.75]), torch.tensor([-0.25]), 6, 1, 1, 3)
    assert at_the_edge[0, 0].tolist() == [[0.0] * 6, [1.0, 0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0]]
    assert not interpolation(torch.tensor([-3.0]), torch.tensor([-2.0]), 6, 1, 1, 3).any()
