"""WeakDetector: views see what is there, and what it refuses."""

import copy

import pytest
import torch

from mmkd.models.weak_detector import look
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn, tiny_weak, weak_batch


def test_boxes_stay_on_what_they_show():
    inputs = torch.zeros(1, 3, 20, 40)
    inputs[:, :, 4:10, 2:12] = 1
    boxes = [torch.tensor([[2.0, 4.0, 12.0, 10.0]])]
    for flip in (False, True):
        for size in (None, (40, 120)):
            shown, (box,) = look(inputs, boxes, flip, size)
            x1, y1, x2, y2 = box[0].round().long().tolist()
            assert float(shown[:, :, y1:y2, x1:x2].mean()) > 0.9
            assert float(shown.sum() - shown[:, :, y1 - 2 : y2 + 2, x1 - 2 : x2 + 2].sum()) < 1e-3


def test_views_cost_a_pass_each_and_share_pseudo_labels():
    torch.manual_seed(0)
    model = build_model(tiny_weak(4, views=('flip', 'both'), scales=[0.5])).eval()
    inputs, samples = weak_batch()
    sizes, targets = [], []
    model.backbone.register_forward_hook(lambda m, a, out: sizes.append(tuple(a[0].shape[2:])))
    original = model.roi_head.get_targets
    model.roi_head.get_targets = lambda *a: targets.append(original(*a)) or targets[-1]
    model.loss(inputs, samples)
    assert sizes == [(64, 96), (64, 96), (32, 48)] and len(targets) == 2
    assert model.flipped == (False, True, True)


def test_equal_views_give_the_loss_of_one():
    torch.manual_seed(0)
    model = build_model(tiny_weak(4, views=['scale'], scales=[1.0])).eval()
    inputs, samples = weak_batch()
    found = model.loss(inputs, samples)
    model.views = ()
    wanted = model.loss(inputs, samples)
    for key, value in wanted.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-5), key


def test_a_picture_without_samples_is_one_proposal():
    model = build_model(tiny_weak(4)).eval()
    (outputs,) = model(torch.zeros(2, 3, 64, 96))[:1]
    assert outputs.shape == (2, 3)


def test_samples_without_proposals_are_refused():
    model = build_model(tiny_weak(4))
    inputs, samples = weak_batch()
    del samples[1].proposals
    for mode in ('loss', 'predict'):
        with pytest.raises(ValueError, match='1.jpg came without proposals. Let the pipeline have'):
            model(inputs, copy.deepcopy(samples), mode=mode)


def test_another_head_is_refused():
    head = tiny_faster_rcnn(4)['roi_head']
    head['type'] = 'mmdet.StandardRoIHead'
    config = tiny_weak(4)
    config['roi_head'] = head
    with pytest.raises(ValueError, match='needs the RoI head mmkd.MILRoIHead, found StandardRoI'):
        build_model(config)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(views=['turned']), 'WeakDetector: views must be one of'),
        (dict(views='flip'), 'WeakDetector: views must be a list'),
        (dict(scales=[]), 'scales must have a number'),
        (dict(scales=[0]), 'WeakDetector: scales'),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_weak(4, **options))
