"""Losses of a given assignment, against mmdet's own with that assignment."""

import pytest
import torch
from mmengine.structures import InstanceData

from mmkd.families import queries
from mmkd.families.set_losses import object_costs, objects_of, set_losses
from mmkd.functional.set_matching import assign
from mmkd.teacher import build_model
from mmkd.testing import boxes, tiny_dab_detr, tiny_deformable_detr, tiny_detr

SAMPLES = boxes([[0, 0, 32, 64], [8, 8, 40, 60]], [[0, 0, 64, 32]], size=(64, 64))
QFL = dict(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0))
BUILDERS = dict(
    softmax=lambda: tiny_detr(4),
    focal=lambda: tiny_dab_detr(4),
    synchronised=lambda: tiny_deformable_detr(4),
    quality=lambda: tiny_dab_detr(4),
)


def network(name):
    config = BUILDERS[name]()
    if name == 'quality':
        config['bbox_head'].update(QFL)
    return build_model(config)


def predictions(model, layers=2, images=2, count=6):
    generator = torch.Generator().manual_seed(0)
    channels = model.bbox_head.cls_out_channels
    scores = torch.randn(layers, images, count, channels, generator=generator)
    places = 0.2 + 0.6 * torch.rand(layers, images, count, 4, generator=generator)
    return scores, places


class Given:
    """An assigner that was told."""

    def __init__(self, assigned):
        self.rows = iter(assigned.flatten(0, 1))

    def assign(self, pred_instances, gt_instances, img_meta):
        return InstanceData(gt_inds=next(self.rows) + 1)


@pytest.mark.parametrize('name', BUILDERS)
def test_mmdets_own_losses(name):
    model = network(name)
    scores, places = predictions(model)
    truth = queries.ground_truth(SAMPLES, places)
    costs = object_costs(queries.foreground(model, scores), places, truth)
    assigned = objects_of(assign(objects=costs)['objects'], truth[2])
    assert [int((a >= 0).sum()) for a in assigned[0]] == [2, 1]
    found = set_losses(model, scores, places, assigned, truth, SAMPLES)
    head = model.bbox_head
    head.assigner = Given(assigned)
    metas = [sample.metainfo for sample in SAMPLES]
    layers = [
        head.loss_by_feat_single(z, b, [s.gt_instances for s in SAMPLES], metas)
        for z, b in zip(scores, places, strict=True)
    ]
    wanted = [float(sum(part)) for part in zip(*layers, strict=True)]
    assert [float(x) for x in found.values()] == pytest.approx(wanted, rel=1e-4)


def test_the_assignment_is_mmdets():
    """DETR's own assigner has the same costs."""
    model = network('softmax')
    scores, places = predictions(model, layers=1)
    truth = queries.ground_truth(SAMPLES, places)
    costs = object_costs(queries.foreground(model, scores), places, truth)
    found = objects_of(assign(objects=costs)['objects'], truth[2])
    head = model.bbox_head
    for i, sample in enumerate(SAMPLES):
        labels, _, targets, weights, *_ = head._get_targets_single(
            scores[0, i], places[0, i], sample.gt_instances, sample.metainfo
        )
        assert torch.equal(found[0, i] >= 0, labels < 3)
        chosen = truth[0][i, found[0, i].clamp(min=0)]
        torch.testing.assert_close(chosen * weights, targets)


def test_images_without_objects_count_nothing():
    model = network('focal')
    scores, places = predictions(model)
    some = [SAMPLES[0], boxes([], size=(64, 64))[0]]
    truth = queries.ground_truth(some, places)
    assigned = torch.full((2, 2, 6), -1)
    assigned[:, 0, 0] = 0
    once = set_losses(model, scores, places, assigned, truth, some)
    other = scores.clone()
    other[:, 1] = 5
    again = set_losses(model, other, places, assigned, truth, some)
    assert {k: float(v) for k, v in once.items()} == {k: float(v) for k, v in again.items()}
    none = boxes([], [], size=(64, 64))
    truth = queries.ground_truth(none, places)
    found = set_losses(
        model, scores.requires_grad_(), places, torch.full((2, 2, 6), -1), truth, none
    )
    assert sum(float(x) for x in found.values()) == 0
    sum(found.values()).backward()
    assert not scores.grad.any()
