"""The Distiller: a plain student to everybody else, and what a step returns."""

import copy

import pytest
import torch
from distiller_toys import Returns, Square, batch, toy
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkd.distiller import Distiller
from mmkd.teacher import build_model
from mmkd.testing import (
    ToyNet,
    detection_batch,
    pixels,
    segmentation_batch,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)

# --------------------------------------------------------------------------- who is a student


def test_keys_parameters_and_children_are_the_plain_students_plus_objectives():
    student = ToyNet(norm='BN')
    plain = list(student.state_dict())
    distiller = toy(student=student)
    own = [k for k in distiller.state_dict() if not k.startswith('objectives.')]
    assert own == plain
    extra = set(distiller.state_dict()) - set(plain)
    assert extra == {
        f'objectives.square.adapters.{k}.conv.{p}' for k in '01' for p in ('weight', 'bias')
    }
    assert {id(p) for p in distiller.parameters()} >= {id(p) for p in student.parameters()}
    assert dict(distiller.named_children()).keys() == {
        *dict(student.named_children()),
        'objectives',
    }


@pytest.mark.parametrize(
    ('config', 'data'),
    [
        (tiny_faster_rcnn(4), detection_batch()),
        (tiny_retinanet(4), detection_batch()),
        (tiny_pspnet(4), segmentation_batch()),
    ],
)
def test_a_checkpoint_is_a_plain_students_and_predicts_the_same(config, data, tmp_path):
    """GEN-6 and GEN-8."""
    distiller = Distiller(
        config, dict(cwd=dict(type='mmkd.CWD')), dict(config=config, checkpoint='random')
    )
    distiller.init_weights()
    torch.save(distiller.state_dict(), tmp_path / 'it.pth')
    stock = build_model(config).eval()
    state = torch.load(tmp_path / 'it.pth')
    plain = {k: v for k, v in state.items() if not k.startswith('objectives.')}
    stock.load_state_dict(plain, strict=True)
    result = stock.load_state_dict(state, strict=False)
    assert not result.missing_keys
    distiller.eval()
    inputs, samples = data
    with torch.no_grad():
        found, wanted = (
            m(inputs, copy.deepcopy(samples), mode='predict') for m in (distiller, stock)
        )
    for a, b in zip(found, wanted, strict=True):
        if 'pred_instances' in a:
            assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)
            assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)
        else:
            assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)


def test_a_plain_checkpoint_loads_into_it():
    distiller, plain = toy(), ToyNet()
    result = distiller.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(k.startswith('objectives.') for k in result.missing_keys)


def test_attributes_of_the_student_are_reachable_and_others_are_not():
    distiller = toy()
    assert distiller.neck is distiller.student.neck
    assert distiller.extract_feat(pixels())[0].shape[1] == 4
    with pytest.raises(AttributeError, match='with_banana'):
        distiller.with_banana  # noqa: B018
    detector = Distiller(tiny_retinanet(4), {})
    assert detector.with_neck and not detector.with_mask


def test_forward_modes_are_the_students_own():
    distiller = toy().eval()
    inputs, samples = batch()
    assert torch.equal(distiller(inputs, samples), distiller.student(inputs, samples))
    assert len(distiller(inputs, samples, mode='predict')) == 2
    assert set(distiller(inputs, samples, mode='loss')) == {'loss_cls', 'kd.square.loss'}


def test_train_and_eval_reach_student_and_objectives_and_never_the_teacher():
    distiller = toy(student=ToyNet(dropout=0.5))
    for mode in (True, False, True):
        distiller.train(mode)
        assert distiller.training == mode
        assert all(m.training == mode for m in distiller.student.modules())
        assert all(m.training == mode for m in distiller.objectives.modules())
        assert not any(m.training for m in distiller.teachers['teacher'].model.modules())


def test_norm_eval_of_a_backbone_is_honoured():
    distiller = Distiller(tiny_retinanet(4, backbone=dict(norm_eval=True, frozen_stages=1)), {})
    distiller.train()
    norms = [m for m in distiller.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert not any(p.requires_grad for p in distiller.backbone.layer1.parameters())


# ------------------------------------------------------------------------- where teachers are not


def test_the_teacher_is_in_no_state_no_optimiser_and_no_average():
    distiller = toy()
    frozen = {id(p) for p in distiller.teachers['teacher'].model.parameters()}
    assert not frozen & {id(p) for p in distiller.parameters()}
    assert not any('teacher' in key for key in distiller.state_dict())
    assert not any('teacher' in name for name, _ in distiller.named_modules())
    groups = build_optim_wrapper(distiller, dict(optimizer=dict(type='SGD', lr=1))).param_groups
    assert not frozen & {id(p) for g in groups for p in g['params']}
    average = ExponentialMovingAverage(distiller)
    assert average.module.teachers['teacher'] is distiller.teachers['teacher']
    assert set(average.module.state_dict()) == set(distiller.state_dict())


def test_init_weights_initialises_the_student_alone():
    config = tiny_retinanet(4)
    distiller = Distiller(
        config, dict(fgfi=dict(type='mmkd.FGFI')), dict(config=config, checkpoint='random')
    )
    before = copy.deepcopy(distiller.teachers['teacher'].model.state_dict())
    adapters = copy.deepcopy(distiller.objectives.state_dict())
    student = distiller.backbone.conv1.weight.clone()
    distiller.init_weights()
    assert not torch.equal(student, distiller.backbone.conv1.weight)
    for key, value in distiller.teachers['teacher'].model.state_dict().items():
        assert torch.equal(value, before[key])
    for key, value in distiller.objectives.state_dict().items():
        assert torch.equal(value, adapters[key])


def test_a_copy_shares_the_teacher_and_nothing_else():
    distiller = toy()
    twin = copy.deepcopy(distiller)
    assert twin.teachers['teacher'] is distiller.teachers['teacher']
    assert twin.student is not distiller.student
    assert twin.student.neck is twin.neck is not distiller.neck
    assert twin.recorder.model is twin.student
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in distiller.parameters()}
    with torch.no_grad():
        twin.neck.conv.weight.zero_()
    losses = [d.loss(*batch()) for d in (distiller, twin)]
    assert losses[0]['kd.square.loss'] != losses[1]['kd.square.loss']
    assert losses[0]['loss_cls'] != losses[1]['loss_cls']


def test_weights_loaded_later_are_those_that_train():
    distiller = toy()
    state = {k: torch.zeros_like(v) for k, v in distiller.state_dict().items()}
    distiller.load_state_dict(state)
    assert not distiller.student.extract_feat(pixels())[0].any()


def test_moving_it_moves_the_teacher_but_not_its_dtype():
    distiller = toy().to(torch.float64)
    assert next(distiller.parameters()).dtype == torch.float64
    assert next(distiller.teachers['teacher'].model.parameters()).dtype == torch.float32
    meta = toy().to('meta')
    assert next(meta.teachers['teacher'].model.parameters()).is_meta


def test_nothing_of_a_run_at_build_moves_the_random_streams():
    import random

    import numpy as np

    def states():
        return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    config = tiny_faster_rcnn(4)
    ends = []
    for wrapped in (False, True):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        if wrapped:
            teacher = dict(config=tiny_faster_rcnn(8), checkpoint='random')
            methods = dict(
                f=dict(type='mmkd.FGFI'), c=dict(type='mmkd.CWD'), k=dict(type='mmkd.KD')
            )
            Distiller(config, methods, teacher)
        else:
            build_model(config)
        ends.append(states())
    assert torch.equal(ends[0][0], ends[1][0]) and ends[0][1:] == ends[1][1:]


# ------------------------------------------------------------------------------ what a step is


def test_a_step_returns_the_students_losses_and_the_terms_under_their_names():
    distiller = toy(dict(a=Square(weight=2.0), b=Square(student='backbone', weight=0.5)))
    losses = distiller.loss(*batch())
    assert list(losses) == ['loss_cls', 'kd.a.loss', 'kd.b.loss']
    total, log = distiller.parse_losses(losses)
    assert float(total) == pytest.approx(sum(float(v.detach()) for v in losses.values()), rel=1e-6)
    assert set(log) == {'loss', *losses}


def test_train_step_updates_student_and_adapters():
    distiller = toy()
    wrapper = build_optim_wrapper(distiller, dict(optimizer=dict(type='SGD', lr=0.1)))
    before = copy.deepcopy(distiller.state_dict())
    inputs, samples = batch()
    distiller.train_step(dict(inputs=list(inputs), data_samples=samples), wrapper)
    after = distiller.state_dict()
    changed = [k for k in before if not torch.equal(before[k], after[k])]
    assert 'neck.conv.weight' in changed and 'objectives.square.adapters.0.conv.weight' in changed


def test_keys_that_start_with_loss_are_summed_and_others_logged():
    def value(trace):
        x = trace.student['neck'][0].mean()
        return dict(loss_a=x, loss_b=2 * x, cells=x.detach() * 0 + 5)

    distiller = toy(dict(it=Returns(value, weight=3.0)))
    losses = distiller.loss(*batch())
    assert float(losses['kd.it.cells']) == 5
    assert float(losses['kd.it.loss_b']) == pytest.approx(2 * float(losses['kd.it.loss_a']))
    total = float(distiller.parse_losses(losses)[0])
    assert total == pytest.approx(
        float(losses['loss_cls']) + 3 * float(losses['kd.it.loss_a']), rel=1e-5
    )


def test_a_key_that_would_be_summed_by_accident_is_refused():
    distiller = toy(dict(it=Returns(lambda t: dict(my_loss=t.student['neck'][0].mean()))))
    with pytest.raises(ValueError, match="objective 'it' returned 'my_loss'"):
        distiller.loss(*batch())


def test_the_teacher_does_not_run_while_every_weight_is_zero(running):
    for objective, iterations in (
        (Square(weight=0), {0: 0, 99: 0}),
        (Square(weight=dict(start=10)), {9: 0, 10: 1}),
        (Square(weight=dict(stop=0.5)), {49: 1, 50: 0}),
    ):
        distiller = toy(dict(square=objective))
        calls = []
        distiller.teachers['teacher'].model.backbone.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        for iteration, wanted in iterations.items():
            running(iteration)
            calls.clear()
            distiller.parse_losses(distiller.loss(*batch()))[0].backward()
            assert len(calls) == wanted, (objective.weight, iteration)


def test_a_resting_objective_keeps_its_parameters_in_the_graph(running):
    distiller = toy(dict(square=Square(weight=dict(start=10))))
    running(0)
    losses = distiller.loss(*batch())
    assert float(losses['kd.square.loss']) == 0
    losses['kd.square.loss'].backward()
    assert all(p.grad is not None and not p.grad.any() for p in distiller.objectives.parameters())


def test_weight_zero_for_ever_asks_for_nothing():
    distiller = toy(dict(square=Square(weight=0)))
    assert not any(p.requires_grad for p in distiller.objectives.parameters())
    assert set(distiller.loss(*batch())) == {'loss_cls'}


def test_schedules_scale_what_the_objective_returns(running):
    distiller = toy(dict(square=Square(weight=dict(value=4.0, warmup=0.5))))
    values = []
    for iteration in (25, 75):
        running(iteration)
        values.append(float(distiller.loss(*batch())['kd.square.loss'].detach()))
    assert values[1] == pytest.approx(2 * values[0], rel=1e-5)


def test_task_weight():
    distiller = toy(task_weight={'loss_cls': 0.0})
    assert float(distiller.loss(*batch())['loss_cls']) == 0


@pytest.mark.parametrize('weight', [-1, '1', {'a': {'value': 1}}, {'a': -1}])
def test_bad_task_weights_are_refused(weight):
    with pytest.raises(ValueError, match='task_weight'):
        toy(task_weight=weight)


def test_edits_are_of_the_student():
    edits = [dict(type='mmkd.FakeQuant', bits=4)]
    model = toy(edits=edits)
    assert 'edit FakeQuant: ' in str(model.plan) and model.edits_made is model.student.edits_made
    assert model.state_dict().keys() == toy().state_dict().keys()
    with pytest.raises(
        ValueError, match=r'edits= beside peers= \(other\) leaves open which .*Edited'
    ):
        toy(edits=edits, peers=dict(other=ToyNet()))
    twin = toy(
        student=dict(type='mmkd.Edited', model=tiny_classifier(4), edits=edits), objectives={}
    )
    assert [made.name for made in twin.student.edits_made] == ['FakeQuant']
