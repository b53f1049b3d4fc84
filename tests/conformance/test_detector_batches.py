"""What every objective for detectors owes on images of unequal size, and beside crowds."""

import copy

import pytest
import torch
from cases import CLASSIFIERS, SEGMENTORS, SIZE, Case, batch, pairs, terms, total
from mmengine.structures import InstanceData

DETECTING = [pair for pair in pairs() if pair[1] not in (*CLASSIFIERS, *SEGMENTORS)]


@pytest.fixture(scope='module', params=DETECTING, ids='-'.join)
def it(request):
    return Case(*request.param)


def unequal(family):
    """A small image with boxes first, padded as mmdet does, then a larger one without."""
    inputs, samples = batch(family, size=SIZE)
    small, large = samples
    h, w = SIZE[0] // 2, SIZE[1] // 3
    inputs[0, :, h:] = inputs[0, :, :, w:] = 0
    small.set_metainfo(dict(img_shape=(h, w), ori_shape=(h, w), pad_shape=(h, w)))
    small.gt_instances.bboxes = torch.tensor([[2.0, 3, 20, 24], [8, 8, 31, 31]])
    large.gt_instances = large.gt_instances[:0]
    return inputs, samples


def test_images_of_unequal_size_one_of_them_without_boxes(it):
    distiller = copy.deepcopy(it.distiller)
    result = terms(distiller, unequal(it.family))
    loss = total(result)
    assert loss.isfinite() and loss.requires_grad
    own = [p for p in distiller.objectives.parameters() if p.requires_grad]
    inputs = [p for p in distiller.student.parameters() if p.requires_grad] + own
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert all(g.isfinite().all() for g in grads if g is not None)
    assert all(g is not None for g in grads[len(inputs) - len(own) :])


def test_crowds_are_no_objects(it):
    """Regions to be ignored change nothing, with an assigner that does not look at them either."""
    twin = copy.deepcopy(it.distiller)
    inputs, samples = batch(it.family)
    for sample in samples:
        crowd = torch.tensor([[0.0, 0, 60, 60], [30, 2, 90, 50]])
        sample.ignored_instances = InstanceData(bboxes=crowd, labels=torch.zeros(2).long())
    for key, value in terms(twin, (inputs, samples)).items():
        torch.testing.assert_close(value, it.result[key], msg=key)
