"""Boxes: overlap, choice, thinning out, and levels of a pyramid."""

import torch
from detection_toys import detector

from mmkd.functional.boxes import box_levels, rank_in_group, select_boxes, spread


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
    keep = spread(groups, torch.tensor([4, 5]))
    assert torch.bincount(groups[keep]).tolist() == [4, 3]
    assert keep[:10].nonzero()[:, 0].tolist() == [2, 4, 7, 9]
    assert rank_in_group(torch.tensor([1, 0, 1, 1])).tolist() == [0, 0, 1, 2]
    assert len(spread(groups[:0], torch.tensor([4, 5]))) == 0


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
