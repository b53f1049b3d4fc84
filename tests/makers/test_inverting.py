"""Images out of a network: total variation, statistics, layouts, and one batch."""

import numpy as np
import pytest
import torch
from torch import nn

from mmkd.makers.inverting import (
    Inverter,
    Statistics,
    class_loss,
    detection_loss,
    layout,
    rounded,
    total_variation,
)
from mmkd.teacher import Teacher
from mmkd.testing import tiny_classifier, tiny_detr, tiny_faster_rcnn, tiny_fcos, tiny_yolov3


def network(config, seed=0):
    torch.manual_seed(seed)
    return Teacher(config, 'random').model


def test_total_variation():
    """2 x 2 pixels 0 1 / 2 4: differences 1, 2 (right), 2, 3 (below), 4 and 1 (diagonals)."""
    x = torch.tensor([[0.0, 1.0], [2.0, 4.0]])[None, None]
    wanted = 5**0.5 + 13**0.5 + 4 + 1
    assert total_variation(torch.cat([x, x * 0])).tolist() == pytest.approx([wanted, 0])


def test_statistics_against_a_loop():
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(3), nn.BatchNorm1d(3)]
    model = nn.Sequential(norms[0], nn.Flatten(2), norms[1]).eval()
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, 2, 5, requires_grad=True)
    statistics = Statistics(model)
    with statistics.seen():
        between = norms[0](x).detach()
        model(x)
    wanted = 0
    for norm, values in zip(norms, (x.detach(), between), strict=True):
        rows = [values[:, c].flatten() for c in range(3)]
        mean = torch.stack([row.mean() for row in rows]) - norm.running_mean
        var = torch.stack([((r - r.mean()) ** 2).mean() for r in rows]) - norm.running_var
        wanted += float(mean.square().sum().sqrt() + var.square().sum().sqrt())
    # The direct call of the first layer counted as well.
    first = float(statistics.terms[0].detach())
    assert float(statistics.distance(x).detach()) == pytest.approx(wanted + first, rel=1e-5)
    assert not norms[0]._forward_pre_hooks
    assert torch.autograd.grad(statistics.distance(x), x)[0].abs().sum() > 0


def test_statistics_are_0_where_they_are_those_of_training():
    norm = nn.BatchNorm2d(2, momentum=1.0)
    x = torch.randn(8, 2, 4, 4)
    norm(x)
    norm.running_var *= (8 * 16 - 1) / (8 * 16)  # stored unbiased
    norm.eval()
    statistics = Statistics(norm)
    with statistics.seen():
        norm(x)
    assert float(statistics.distance(x)) == pytest.approx(0, abs=1e-5)


def test_pixels_are_rounded_to_the_nearest():
    """127.5 + 64 v: v = 1 is 191.5, to the even 192; beyond the range it is clamped."""
    assert rounded(torch.tensor([-3.0, -1.0, 0.01, 1.0, 3.0])).tolist() == [0, 64, 128, 192, 255]


def test_layouts():
    counts, labels = [], []
    for seed in range(200):
        found, own = layout((40, 60), 5, 3, (0.2, 0.6), np.random.default_rng(seed))
        boxes = np.array(found)
        counts.append(len(boxes))
        labels += own
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 60).all() and (boxes[:, 3] <= 40).all()
        roots = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) / 40
        assert (roots > 0.17).all() and (roots < 0.63).all()
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                w, h = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
                both = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - w * h
                assert w * h / both <= 0.3
    assert set(counts) == {1, 2, 3} and set(labels) == set(range(5))


def test_the_network_takes_pixels_as_its_own_preprocessor_gives_them():
    model = network(tiny_classifier(4))
    images = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8)
    wanted = model.data_preprocessor(dict(inputs=images), False)['inputs']
    inverter = Inverter(model, dict(task=1, l2=0, tv=0, bn=0), 1, 0.1, 0)
    torch.testing.assert_close(inverter.normalised(images), wanted)


def test_a_batch_depends_on_its_seed_alone_and_moves_nothing():
    model = network(tiny_classifier(4))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loss = class_loss(model, torch.tensor([0, 1, 2]))
    inverter = Inverter(model, dict(task=1.0, l2=0.01, tv=1e-3, bn=1.0), 8, 0.1, 2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = inverter(loss, 3, (8, 12), 7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = inverter(loss, 3, (8, 12), 7), inverter(loss, 3, (8, 12), 8)
    assert found['images'].shape == (3, 3, 8, 12) and torch.equal(found['images'], again['images'])
    assert not torch.equal(found['images'], other['images'])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize('term', ['l2', 'tv', 'bn'])
def test_each_term_alone_falls(term):
    """l2 and tv towards a grey image; bn towards the statistics of the network."""
    model = network(tiny_classifier(4))
    factors = dict(dict(task=0.0, l2=0.0, tv=0.0, bn=0.0), **{term: 1.0})
    loss = class_loss(model, torch.tensor([0, 1, 2, 0]))
    found = Inverter(model, factors, 30, 0.1, 0)(loss, 4, (8, 8), 0)
    spread = found['images'].float().std(dim=(1, 2, 3)).mean()
    assert found['bn'][1] < 0.95 * found['bn'][0] if term == 'bn' else spread < 20


@pytest.mark.parametrize('make', [tiny_faster_rcnn, tiny_fcos, tiny_yolov3, tiny_detr])
def test_a_detector_is_inverted_through_its_own_loss(make):
    """In train mode, as training computes it, with the statistics and flags as before."""
    model = network(make(4))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    layouts = [([[4.0, 4.0, 30.0, 40.0]], [1]), ([[8.0, 2.0, 60.0, 30.0], [1, 30, 9, 50]], [0, 2])]
    loss = detection_loss(model, (50, 64), layouts)
    inverter = Inverter(model, dict(task=1.0, l2=0.0, tv=0.0, bn=0.0), 12, 0.3, 0)
    found = inverter(loss, 2, (50, 64), 0)
    assert found['task'][1] < found['task'][0] and found['images'].shape == (2, 3, 50, 64)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
