"""The tiny weakly supervised detector runs in all modes."""

import torch

from mmkd.teacher import build_model
from mmkd.testing import tiny_weak, weak_batch


def test_it_runs():
    model = build_model(tiny_weak(4, norm='GN', roi_head=dict(boxes=False)))
    inputs, samples = weak_batch(2, objects=1, spare=5)
    assert [len(sample.proposals) for sample in samples] == [6, 6]
    assert torch.equal(samples[0].proposals.bboxes[:1], samples[0].gt_instances.bboxes)
    losses = model(inputs, samples, mode='loss')
    assert all(value.isfinite() for value in losses.values())
    assert len(model.eval()(inputs, samples, mode='predict')) == 2
