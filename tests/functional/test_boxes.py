"""Boxes: overlap, choice, thinning out, and levels of a pyramid."""

import pytest
import torch
from detection_toys import detector
from mmcv.ops import roi_align
from torch import nn

from mmkd.functional.boxes import (
    aligned,
    best_apart,
    box_levels,
    by_level,
    by_level_and_image,
    iou_matrix,
    rank_in_group,
    roi_features,
    select_boxes,
    thin_out,
)


def test_level_rule():
    sides = torch.tensor([1.0, 111, 112, 223, 224, 449, 900])
    square = torch.stack((0 * sides, 0 * sides, sides, sides), 1)
    assert box_levels(square, [4, 8, 16, 32]).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert box_levels(square, [8, 16, 32]).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert box_levels(square, [16]).tolist() == [0] * 7
    extractor = detector('frcnn').roi_head.bbox_roi_extractor
    rois = torch.cat((torch.zeros(7, 1), square), 1)
    assert torch.equal(extractor.map_roi_levels(rois, 4), box_levels(square, [4, 8, 16, 32]))


def test_spread():
    groups = torch.tensor([0] * 10 + [1] * 3)
    keep = thin_out(groups, torch.tensor([4, 5]))
    assert torch.bincount(groups[keep]).tolist() == [4, 3]
    assert keep[:10].nonzero()[:, 0].tolist() == [2, 4, 7, 9]
    assert rank_in_group(torch.tensor([1, 0, 1, 1])).tolist() == [0, 0, 1, 2]
    assert len(thin_out(groups[:0], torch.tensor([4, 5]))) == 0


def test_select_boxes():
    box = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [5, 5, 5, 9], [0, 0, 9, 9]]
    )
    both = torch.stack((box, box))
    both[1, 0] = float('nan')
    scores = torch.tensor([[0.9, 0.8, 0.7, 1.0, 0.1]]).repeat(2, 1)
    rois, places = select_boxes(scores, both, 0.7, 2)
    found = {n: places[rois[:, 0] == n].tolist() for n in (0, 1)}
    assert found == {0: [0, 2], 1: [1, 2]}
    assert select_boxes(scores, both, 0.7, 2, min_side=20)[0].shape == (0, 5)


def test_pixel_offset_counts_sides_inclusively():
    a, b = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([[5.0, 0.0, 14.0, 9.0]])
    assert float(iou_matrix(a, b)) == pytest.approx(36 / (2 * 81 - 36))
    assert float(iou_matrix(a, b, offset=1)) == pytest.approx(50 / (2 * 100 - 50))
    touching = torch.tensor([[9.0, 0.0, 18.0, 9.0]])
    assert float(iou_matrix(a, touching)) == 0 < float(iou_matrix(a, touching, 1))


def test_iou_one_by_one():
    torch.manual_seed(0)
    low = torch.rand(12, 2) * 20
    boxes = torch.cat((low, low + torch.rand(12, 2) * 20), 1)
    found = iou_matrix(boxes[:5], boxes[5:])
    for i, a in enumerate(boxes[:5].tolist()):
        for j, b in enumerate(boxes[5:].tolist()):
            width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
            height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
            areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
            wanted = width * height / (sum(areas) - width * height)
            assert float(found[i, j]) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert iou_matrix(boxes[:0], boxes).shape == (0, 12)
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert float(iou_matrix(point, point)) == 0, 'no area, no overlap'


def test_no_box_is_selected_of_none():
    rois, places = select_boxes(torch.zeros(2, 0), torch.zeros(2, 0, 4), 0.5, 3)
    assert rois.shape == (0, 5) and places.shape == (0,)


def pyramid():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 64 // s, 64 // s, generator=generator) for s in (8, 16)]


ROIS = torch.tensor([[1.0, 0, 0, 60, 60], [0, 8, 8, 24, 24], [0, 0, 0, 63, 40], [1, 3, 5, 20, 9]])


def test_features_of_rois_are_those_of_each_alone_on_its_level():
    maps = pyramid()
    rois = torch.cat((ROIS, torch.tensor([[0.0, 0, 0, 240, 240]])))
    assert box_levels(rois[:, 1:], [8, 16]).tolist() == [0, 0, 0, 0, 1]
    found = roi_features(maps, [8, 16], rois, 2, 2)
    assert found.shape == (5, 3, 2, 2)
    for roi, own in zip(rois, found, strict=True):
        level = int(box_levels(roi[None, 1:], [8, 16]))
        alone = roi_align(maps[level], roi[None], 2, 1 / (8, 16)[level], 2, 'avg', True)
        torch.testing.assert_close(own, alone[0])
    swapped = roi_features(maps[::-1], [16, 8], rois, 2, 2)
    assert torch.equal(swapped, found), 'levels come in any order'


def test_constant_maps_have_constant_features():
    maps = [torch.full_like(x, 3.0) for x in pyramid()]
    torch.testing.assert_close(
        roi_features(maps, [8, 16], ROIS, 4, 0), torch.full((4, 3, 4, 4), 3.0)
    )


def test_without_rois_the_way_back_to_the_map_remains():
    maps = [x.requires_grad_() for x in pyramid()]
    adapter = nn.Conv2d(3, 3, 1)
    for adapt in (None, adapter):
        found = roi_features(maps, [8, 16], ROIS[:0], 2, 2, adapt)
        assert found.shape == (0, 3, 2, 2)
        found.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in (maps[1], *adapter.parameters()))


def test_both_sides_are_aligned_alike():
    student, teacher = pyramid(), pyramid()
    own, wanted = aligned(list(zip((8, 16), student, teacher, strict=True)), ROIS, 2, 2)
    assert torch.equal(own, roi_features(student, (8, 16), ROIS, 2, 2))
    assert torch.equal(wanted, roi_features(teacher, (8, 16), ROIS, 2, 2))


def test_best_apart_keeps_what_nms_keeps():
    torch.manual_seed(0)
    low = torch.rand(2, 300, 2) * 40
    boxes = torch.cat((low, low + torch.rand(2, 300, 2) * 30), 2)
    boxes[0, 5] = float('nan')
    scores = torch.rand(2, 300)
    scores[1, 7] = float('inf')
    for iou in (0.1, 0.3, 0.7):
        rois, wanted = select_boxes(scores, boxes, iou, 12, min_side=8)
        places, real = best_apart(scores, boxes, iou, 12, min_side=8)
        for n in (0, 1):
            assert places[n][real[n]].tolist() == wanted[rois[:, 0] == n].tolist()
    places, real = best_apart(scores[:, :3], boxes[:, :3], 0.01, 4)
    assert real.sum(1).tolist() == [
        len(select_boxes(scores[i : i + 1, :3], boxes[i : i + 1, :3], 0.01, 4)[1]) for i in (0, 1)
    ], 'no box is left'
    assert not best_apart(scores, boxes, 0.5, 2, min_side=1e4)[1].any()


def test_by_level_and_image():
    sides = torch.tensor([300.0, 20, 240, 10, 600, 20])
    images = torch.tensor([1.0, 1, 0, 0, 0, 0])
    rois = torch.stack((images, 0 * sides, 0 * sides, sides, sides), 1)
    real = torch.tensor([True, True, True, True, True, False])
    order, sizes = by_level_and_image(rois, real, [32, 8, 16], 2)
    assert order.tolist() == [3, 1, 2, 0, 4] and sizes == [[1, 1], [1, 1], [1, 0]]
    order, sizes = by_level_and_image(rois, ~real, [8, 16], 1)
    assert order.tolist() == [5] and sizes == [[1], [0]]


def test_rois_sorted_by_level_and_the_way_back():
    sides = torch.tensor([300.0, 20, 240, 1, 600])
    rois = torch.stack((torch.arange(5.0), 0 * sides, 0 * sides, sides, sides), 1)
    for strides in ([8, 16, 32], [32, 8, 16]):
        parts, back = by_level(rois, strides)
        assert [part[:, 0].tolist() for part in parts] == [[1, 3], [0, 2], [4]], 'finest first'
        assert torch.equal(torch.cat(parts)[back], rois)
    parts, back = by_level(rois[:0], [8, 16])
    assert [len(part) for part in parts] == [0, 0] and len(back) == 0
