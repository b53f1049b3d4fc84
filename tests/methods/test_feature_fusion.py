"""FeatureFusion: several teachers, with an adapter each or as a mean."""

import copy

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.functional.fusion import confidence_weights, fused, standard
from mmkd.methods.feature_fusion import FeatureFusion
from mmkd.testing import (
    classification_batch,
    detection_batch,
    segmentation_batch,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)


def distiller_of(make=tiny_retinanet, widths=(8, 8), others=None, **options):
    torch.manual_seed(0)
    makes = others or [make] * len(widths)
    teachers = {
        name: dict(config=kind(width), checkpoint='random')
        for name, kind, width in zip('abc', makes, widths, strict=False)
    }
    entry = dict(type='mmkd.FeatureFusion', teacher_name=list(teachers), **options)
    return Distiller(make(4), dict(it=entry), teachers, preflight=False).train()


def step_of(distiller, data):
    seen = []
    hook = distiller.objectives['it'].register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    losses = distiller.loss(data[0], copy.deepcopy(data[1]))
    hook.remove()
    return losses, seen[0]


def test_an_adapter_for_each_teacher():
    """Of teachers of unequal widths; sum over levels of the weighted distances."""
    distiller = distiller_of(widths=(8, 16), weights=[1.0, 3.0])
    losses, trace = step_of(distiller, detection_batch())
    objective, wanted = distiller.objectives['it'], 0.0
    for number, (name, weight) in enumerate((('a', 0.25), ('b', 0.75))):
        for k, (s, t) in enumerate(
            zip(trace.student['neck'], trace.teachers[name]['neck'], strict=True)
        ):
            apart = objective.adapters[f'{number}_{k}'](s) - standard(t)
            wanted = wanted + weight * apart.square().mean()
    torch.testing.assert_close(losses['kd.it.loss'], wanted)
    assert losses['kd.it.share_1'] == 0.75
    losses['kd.it.loss'].backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert distiller.student.backbone.conv1.weight.grad.any()


def test_the_mean_of_teachers():
    distiller = distiller_of(fuse='mean')
    losses, trace = step_of(distiller, detection_batch())
    objective = distiller.objectives['it']
    half = torch.tensor([0.5, 0.5])
    levels = zip(trace.student['neck'], *(s['neck'] for s in trace.teachers.values()), strict=True)
    wanted = sum(
        (objective.adapters[f'0_{k}'](s) - fused(t, half)).square().mean()
        for k, (s, *t) in enumerate(levels)
    )
    torch.testing.assert_close(losses['kd.it.loss'], wanted)
    assert len(objective.adapters) == 5


@pytest.mark.parametrize(
    ('make', 'data'),
    [
        (tiny_retinanet, detection_batch()),
        (tiny_faster_rcnn, detection_batch()),
        (tiny_pspnet, segmentation_batch()),
        (tiny_classifier, classification_batch(4)),
    ],
)
def test_confidence_chooses_image_by_image(make, data):
    distiller = distiller_of(make, weights='confidence')
    _, trace = step_of(distiller, data)
    objective = distiller.objectives['it']
    found = objective.weights_of(trace)
    assert found.shape == (2, len(data[0]))
    torch.testing.assert_close(found.sum(0), torch.ones(len(data[0])))
    each = torch.stack([objective._confidence(s, trace) for s in trace.teachers.values()])
    assert ((each >= 0) & (each <= 1)).all()
    torch.testing.assert_close(found, confidence_weights(each))


def test_teachers_of_other_kinds():
    """Only their maps are compared."""
    distiller = distiller_of(
        widths=(8, 8), others=[tiny_retinanet, tiny_faster_rcnn], level_map='common'
    )
    pairs = distiller.objectives['it'].pairs
    assert pairs == {'a': [(i, i) for i in range(5)], 'b': [(0, 1), (1, 2), (2, 3), (3, 4)]}
    losses, _ = step_of(distiller, detection_batch())
    assert losses['kd.it.loss'] > 0
    assert 'separate maps of a, b, weights: equal' in str(distiller.plan)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: FeatureFusion(teacher_name=['a']), 'teacher_name names 1. Name at least two'),
        (lambda: FeatureFusion(weights=[1, -1]), 'each of weights must be'),
        (lambda: FeatureFusion(weights=[]), "must be 'equal', 'confidence' or a list"),
        (lambda: FeatureFusion(weights='best'), 'weights must be one of'),
        (lambda: FeatureFusion(fuse='sum'), 'fuse must be one of'),
        (
            lambda: FeatureFusion(teacher_name=['a', 'b'], weights=[1, 1, 1]),
            'weights has 3 numbers for 2 teachers',
        ),
        (lambda: FeatureFusion().check_dataset(None), 'teacher_name names 0'),
        (lambda: distiller_of(widths=(8, 16), fuse='mean'), "'b' .*32, 32, 32.*fuse='separate'"),
        (
            lambda: distiller_of(others=[tiny_retinanet, tiny_faster_rcnn]),
            "teacher 'b': pyramid levels do not pair up",
        ),
        (
            lambda: distiller_of(tiny_detr, weights='confidence'),
            'FeatureFusion decodes boxes of the teacher',
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
