"""PreRegression: who learns from which term, and networks that do not fit."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.methods.pre_regression import PreRegression
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, make_trace, tiny_classifier


def distiller(teacher=None, **options):
    torch.manual_seed(0)
    models = [build_model(x) for x in (tiny_classifier(4), teacher or tiny_classifier(8))]
    objectives = dict(it=PreRegression(**options))
    return Distiller(
        models[0], objectives, Teacher(models[1], checkpoint='random'), preflight=False
    )


def test_each_term_has_its_own_pupil():
    it = distiller()
    exits = it.objectives['it'].exits, it.objectives['it'].target_exits
    inputs, samples = classification_batch(4)
    losses = it.loss(inputs, samples)
    for key, learns in (('loss_kd', 0), ('loss_teacher', 1)):
        it.zero_grad()
        losses[f'kd.it.{key}'].backward(retain_graph=True)
        moved = [any(p.grad is not None for p in one.parameters()) for one in exits]
        assert moved == [learns == 0, learns == 1]
        stage = it.student.backbone.layer2[0].conv1.weight.grad
        assert (stage is not None) == (key == 'loss_kd')
    assert len(exits[0]) == len(exits[1]) == 2


def test_numbers():
    it = distiller(tau=2.0)
    objective = it.objectives['it'].eval()
    maps = [torch.randn(4, c, s, s) for c, s in ((4, 8), (8, 4), (16, 2))]
    wide = [torch.randn(4, c, s, s) for c, s in ((8, 8), (16, 4), (32, 2))]
    _, samples = classification_batch(4)
    names = [tap.source for tap in objective.student_taps]
    trace = make_trace(
        dict(zip(names, maps, strict=True)), dict(zip(names, wide, strict=True)), samples
    )
    found = objective(trace)
    total, own = 0, 0
    target = torch.cat([sample.gt_label for sample in samples]).long()
    for i in range(2):
        s, t = objective.exits[i](maps[i])[0], objective.target_exits[i](wide[i])[0]
        p, q = (t / 2).softmax(1), (s / 2).softmax(1)
        total += 4 * (p * (p / q).log()).sum(1).mean()
        own += F.cross_entropy(t, target)
    torch.testing.assert_close(found['loss_kd'], total)
    torch.testing.assert_close(found['loss_teacher'], own)


def test_bad_pairs():
    backbone = dict(
        type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, norm_eval=False
    )
    with pytest.raises(ValueError, match='3 stages and the teacher 4'):
        distiller(dict(tiny_classifier(4), backbone=backbone))
    with pytest.raises(ValueError, match='tau must be'):
        PreRegression(tau=0)
