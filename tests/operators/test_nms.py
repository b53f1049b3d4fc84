"""The same boxes stay as in mmcv's loops, in the same order."""

import itertools

import mmcv.ops
import pytest
import torch
from operator_loops import nms, nms_match, softnms

from mmkd.operators import nms as own


def boxes_and_scores(count, ties, seed=0):
    """Boxes of which some coincide and some have no area; with ties, five different scores."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 40], 1)
    if count > 5:
        boxes[3], boxes[4, 2:] = boxes[2], boxes[4, :2]
    scores = torch.rand(count, generator=generator)
    return boxes, (scores * 5).round() / 5 if ties else scores


CASES = list(itertools.product((0, 1, 2, 30, 150), (False, True)))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(('count', 'ties'), CASES)
def test_nms(both, count, ties, threshold, offset):
    boxes, scores = boxes_and_scores(count, ties)
    found, others = both(lambda: mmcv.ops.nms(boxes, scores, threshold, offset)[1])
    for wanted in (nms(boxes, scores, threshold, offset), *others):
        assert found.tolist() == wanted.tolist()


def test_nms_of_more_boxes_than_a_block(both):
    boxes, scores = boxes_and_scores(4 * own.BLOCK, True)
    found, others = both(lambda: mmcv.ops.nms(boxes, scores, 0.5)[1])
    for wanted in (nms(boxes, scores, 0.5, 0), *others):
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_nms_in_other_precisions_decides_as_in_float32(own, dtype):
    boxes, scores = (x.bfloat16() for x in boxes_and_scores(100, True))
    found = mmcv.ops.nms(boxes.to(dtype), scores.to(dtype), 0.5)[1]
    assert found.tolist() == mmcv.ops.nms(boxes.to(dtype).float(), scores.float(), 0.5)[1].tolist()


def test_batched_nms_keeps_classes_apart(both):
    boxes, scores = boxes_and_scores(60, False)
    labels = torch.arange(60) % 3
    settings = {'type': 'nms', 'iou_threshold': 0.3}
    found, others = both(lambda: mmcv.ops.batched_nms(boxes, scores, labels, settings)[1])
    alone = [nms(boxes[labels == i], scores[labels == i], 0.3, 0) * 3 + i for i in range(3)]
    assert sorted(found.tolist()) == sorted(torch.cat(alone).tolist())
    assert scores[found].tolist() == sorted(scores[found].tolist(), reverse=True)
    for wanted in others:
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7])
@pytest.mark.parametrize(('count', 'ties'), CASES)
def test_nms_match(both, count, ties, threshold):
    boxes, scores = boxes_and_scores(count, ties)
    dets = torch.cat([boxes, scores[:, None]], 1)
    found, others = both(lambda: mmcv.ops.nms_match(dets, threshold))
    for wanted in (nms_match(dets, threshold), *others):
        assert [group.tolist() for group in found] == [list(map(int, group)) for group in wanted]


@pytest.mark.parametrize('operator', [mmcv.ops.nms, mmcv.ops.soft_nms])
def test_boxes_and_scores_may_have_gradients(own, operator):
    boxes, scores = (x.requires_grad_() for x in boxes_and_scores(20, False))
    wanted = operator(boxes.detach(), scores.detach(), 0.5)[1]
    assert operator(boxes, scores, 0.5)[1].tolist() == wanted.tolist()


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize(('count', 'ties'), CASES[:-2])
def test_soft_nms(both, count, ties, method, offset):
    boxes, scores = boxes_and_scores(count, ties)
    options = {'iou_threshold': 0.3, 'sigma': 0.5, 'min_score': 0.1}
    number = ['naive', 'linear', 'gaussian'].index(method)
    (dets, kept), others = both(
        lambda: mmcv.ops.soft_nms(boxes, scores, method=method, offset=offset, **options)
    )
    wanted = boxes.new_empty(count, 5)
    order = softnms(boxes, scores, wanted, method=number, offset=offset, **options)
    for rows, indices in ((wanted[: len(order)], order), *others):
        assert kept.tolist() == indices.tolist()
        torch.testing.assert_close(dets, rows, rtol=1e-5, atol=1e-7)
