"""WSOD2: the sheet's numbers, the weights of a real step, and what it refuses."""

import copy
from types import SimpleNamespace

import pytest
import torch

from mmkd.datasets import GridProposals, Superpixels
from mmkd.distiller import Distiller
from mmkd.methods.wsod2 import WSOD2, evidence
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn, tiny_weak, weak_batch


def detector(**changes):
    torch.manual_seed(0)
    head = dict(seeds='wsod2') | changes.pop('roi_head', {})
    model = build_model(tiny_weak(4, roi_head=head, **changes))
    with torch.no_grad():
        for layer in model.roi_head.bbox_head.branches():
            layer.weight.normal_(0, 0.5)
    return model


def distiller(student=None, weight=1.0, **options):
    student = detector() if student is None else student
    return Distiller(student, dict(it=WSOD2(weight=weight, **options)), preflight=False)


def step(model, data=None):
    torch.manual_seed(0)
    inputs, samples = data or weak_batch()
    return model.loss(inputs, copy.deepcopy(samples))


def test_wsod_3():
    up, down = torch.tensor([0.667]), torch.tensor([0.9])
    assert float(evidence(up, down, 1.0)) == pytest.approx(0.667)
    assert float(evidence(up, down, 0.0)) == pytest.approx(0.9)
    assert float(evidence(up, down, 0.75)) == pytest.approx(0.72525)


@pytest.mark.parametrize(
    ('td', 'wanted'), [('prob', [0.6, 0.5, 1.0, 1.0]), ('ones', [0.75, 0.75, 1, 1])]
)
def test_weights(td, wanted):
    objective = WSOD2(td=td, bottom_up=0.5)
    scores = torch.tensor([[0.7, 0.1], [0.1, 0.5], [0.3, 0.3], [0.2, 0.9]])
    labels = torch.tensor([0, 1, 2, -1])  # two objects, background, ignored
    positive = torch.tensor([True, True, False, False])
    found = objective.weights(torch.full((4,), 0.5), scores, labels, positive)
    assert found.tolist() == pytest.approx(wanted)


def test_losses_of_a_step():
    """With full top-down evidence of 1 they are OICR's, of unweighted proposals."""
    found = step(distiller(bottom_up=0.0, td='ones', factors=dict(boxes=7.5)))
    model = detector()
    original = model.roi_head.get_targets
    model.roi_head.get_targets = lambda *a: original(*a)._replace(
        weights=torch.ones_like(original(*a).weights)
    )
    torch.manual_seed(0)
    inputs, samples = weak_batch()
    wanted = model.loss(inputs, samples)
    both = float(wanted['loss_refine1'] + wanted['loss_refine2'])
    assert float(found['kd.it.loss_refinement']) == pytest.approx(both, rel=1e-5)
    assert float(found['kd.it.loss_boxes']) == pytest.approx(float(wanted['loss_box']), rel=1e-5)


def test_superpixels_count_at_first_and_not_in_the_end():
    inputs, samples = weak_batch()
    for sample in samples:
        sample.proposals.scores[:] = 0.0  # no proposal follows them
    found = step(distiller(bottom_up=1.0), (inputs, samples))
    assert float(found['kd.it.loss_boxes']) == 0 and float(found['kd.it.objectness']) == 0
    late = step(distiller(bottom_up=0.0), (inputs, samples))
    assert float(late['kd.it.loss_boxes']) > 0


def test_a_falls_linearly_from_one_to_zero():
    objective = WSOD2()
    schedule = objective.schedules['bottom_up']
    assert [schedule.number(x) for x in (0.0, 0.25, 1.0)] == pytest.approx([1.0, 0.75, 0.0])
    assert not WSOD2(bottom_up=0.3).schedules
    with pytest.raises(ValueError, match='WSOD2: bottom_up must be a finite number from 0 to 1'):
        WSOD2(bottom_up=dict(value=1.5, decay='linear', end_value=0.0))


def test_views_are_averaged():
    one, three = detector(), detector(views=['flip', 'scale'], scales=[1.0])
    found = [float(step(distiller(m))['kd.it.loss_refinement']) for m in (one.eval(), three.eval())]
    assert found[0] == pytest.approx(found[1], rel=0.2)


def test_without_a_box_branch_there_is_no_box_term():
    model = detector(roi_head=dict(boxes=False))
    found = step(distiller(model))
    assert float(found['kd.it.loss_refinement']) > 0 and 'kd.it.loss_boxes' not in found
    with pytest.raises(ValueError, match='set boxes=True in mmkd.MILRoIHead'):
        distiller(detector(roi_head=dict(boxes=False)), factors=dict(boxes=1.0))


def test_with_weight_zero_the_student_learns_as_alone():
    torch.manual_seed(0)
    inputs, samples = weak_batch()
    alone = detector().loss(inputs, copy.deepcopy(samples))
    found = step(distiller(weight=0.0))
    assert {*found} == {*alone} and all(torch.equal(found[k], alone[k]) for k in alone)


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (lambda: build_model(tiny_faster_rcnn(4)), 'WSOD2 is for detectors that learn from image'),
        (lambda: detector(roi_head=dict(refinements=0, boxes=False)), 'with refinements=0'),
    ],
)
def test_refused(student, message):
    with pytest.raises(ValueError, match=message):
        distiller(student())


def dataset(*transforms):
    return SimpleNamespace(pipeline=SimpleNamespace(transforms=[*transforms]))


def test_a_pipeline_without_superpixels_is_refused():
    WSOD2().check_dataset(dataset(GridProposals(), Superpixels(folder='maps')))
    WSOD2(bottom_up=0).check_dataset(dataset(GridProposals()))
    for objective in (WSOD2(), WSOD2(bottom_up=0.2)):
        with pytest.raises(ValueError, match='Put mmkd.Superpixels behind mmkd.LoadProposals'):
            objective.check_dataset(dataset(GridProposals()))


@pytest.mark.parametrize(
    'weight', [1.0, dict(loss_refine=0), dict(loss_box=0), dict(loss_refine=0.5)]
)
def test_the_students_own_losses_must_give_way(weight):
    objective = distiller().objectives['it']
    objective.check_task_weight(dict(loss_refine=0, loss_box=0))
    with pytest.raises(ValueError, match=r'set task_weight=dict\(loss_refine=0, loss_box=0\)'):
        objective.check_task_weight(weight)


def test_a_peers_cannot():
    objective = WSOD2(learner='other')
    with pytest.raises(ValueError, match="those of the peer 'other' always count"):
        objective.check_task_weight(dict(loss_refine=0))


def test_options_are_checked():
    with pytest.raises(ValueError, match='WSOD2: td must be one of'):
        WSOD2(td='both')
    with pytest.raises(ValueError, match='WSOD2: bottom_up'):
        WSOD2(bottom_up=2)
