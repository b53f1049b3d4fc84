"""The Distiller: a plain student to everybody else, and what a step returns."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmkd
from mmkd.distiller import Distiller
from mmkd.objective import Objective, PairObjective
from mmkd.registry import MODELS
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    ToyNet,
    class_labels,
    detection_batch,
    pixels,
    segmentation_batch,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)


class Square(PairObjective):
    taps = 'neck'

    def compare(self, student, teacher):
        return (student - teacher).square().mean()


class Returns(Objective):
    """Returns what it was told to, whatever it sees."""

    taps = 'neck'

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def forward(self, trace):
        return self.value(trace) if callable(self.value) else self.value


def batch(n=2):
    return pixels(n, (64, 96)), class_labels(torch.arange(n) % 3)


def toy(objectives=None, teacher=None, student=None, **options):
    torch.manual_seed(0)
    return Distiller(
        student=student or ToyNet(),
        teacher=Teacher(ToyNet(6), checkpoint='random') if teacher is None else teacher,
        objectives=dict(square=Square()) if objectives is None else objectives,
        **{'preflight': False, **options},
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


# -------------------------------------------------------------------------- several of everything


def test_several_teachers_by_name():
    teachers = dict(
        big=Teacher(ToyNet(6), checkpoint='random'), small=Teacher(ToyNet(2), checkpoint='random')
    )
    objectives = dict(a=Square(teacher_name='big'), b=Square(teacher_name='small'))
    distiller = toy(objectives, teachers)
    widths = [distiller.objectives[k].adapters['0'].conv.out_channels for k in 'ab']
    assert widths == [6, 2]
    for name, wanted in (('big', 'kd.a.loss'), ('small', 'kd.b.loss')):
        with torch.no_grad():
            before = float(distiller.loss(*batch())[wanted])
            for p in distiller.teachers[name].model.parameters():
                p.mul_(3)
            assert float(distiller.loss(*batch())[wanted]) != before


def test_which_teacher_must_be_clear():
    teachers = {n: Teacher(ToyNet(), checkpoint='random') for n in ('a', 'b')}
    with pytest.raises(
        ValueError, match="objective 'square': Square names no teacher_name. Teachers: a, b"
    ):
        toy(teacher=teachers)
    with pytest.raises(ValueError, match="teacher_name='c'. Teachers: a, b"):
        toy(dict(it=Square(teacher_name='c')), teachers)
    with pytest.raises(ValueError, match='none; add teacher='):
        toy(teacher={})


def test_an_objective_without_teacher_needs_none():
    class Alone(Objective):
        taps, needs_teacher = 'neck', False

        def forward(self, trace):
            assert trace.teacher is None
            return trace.student['neck'][0].square().mean()

    distiller = toy(dict(alone=Alone()), teacher={})
    assert float(distiller.loss(*batch())['kd.alone.loss']) > 0


def test_two_objectives_may_share_a_tap():
    distiller = toy(dict(a=Square(), b=Square(student='neck[0]')))
    assert set(distiller.recorder.taps) == {'neck'}
    losses = distiller.loss(*batch())
    assert losses['kd.a.loss'] != losses['kd.b.loss']


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ('objectives', 'kind', 'message'),
    [
        (dict(my_loss=Square()), ValueError, "objective name 'my_loss'"),
        ({'a.b': Square()}, ValueError, "objective name 'a.b'"),
        ({'': Square()}, ValueError, 'objective name'),
        (dict(train=Square()), ValueError, "objective name 'train'"),
        ([dict(type='mmkd.CWD')], TypeError, 'must be a mapping of names'),
        (dict(a='mmkd.CWD'), TypeError, "objective 'a': must be dict"),
        (dict(a=dict(weight=1)), ValueError, 'type=None is not registered. Methods of mmkd: .*CWD'),
        (dict(a=dict(type='mmkd.CWP')), ValueError, "type='mmkd.CWP' is not registered"),
        (dict(a=dict(type='mmkd.CWD', tua=1)), TypeError, 'CWD has no option tua; it has .*tau'),
        (dict(a=dict(type='mmkd.CWD', weight=-1)), ValueError, "objective 'a': weight must be"),
        (dict(a=dict(type='mmkd.CWD', tau=0)), ValueError, "objective 'a': CWD: temperature"),
        (dict(a=dict(type='mmkd.ToyNet')), TypeError, "objective 'a' is a ToyNet, no Objective"),
        (dict(a=Square(student='nek')), ValueError, "no module 'nek'.*neck"),
        (
            dict(a=Square(resize='big') if False else dict(type='mmkd.CWD', resize='big')),
            ValueError,
            'resize must be',
        ),
    ],
)
def test_bad_objectives_are_refused_by_name(objectives, kind, message):
    with pytest.raises(kind, match=message):
        toy(objectives)


def test_an_entry_merged_away_is_gone():
    assert not toy(dict(a=None)).objectives


def test_unequal_widths_without_adapter_are_refused_at_build():
    with pytest.raises(ValueError, match="'neck' has 4 channels and teacher 'neck' 6"):
        toy(dict(a=Square(adapt=None)))


def test_a_tap_that_cannot_be_probed_asks_for_widths():
    class Picky(ToyNet):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'tensor':
                raise RuntimeError('not today')
            return super().forward(inputs, data_samples, mode)

    teacher = Teacher(ToyNet(6), checkpoint='random')
    with pytest.raises(ValueError, match='could not be probed at build; give in_channels='):
        toy(dict(a=Square(student='head.shared[0]')), teacher, Picky())
    distiller = toy(
        dict(a=Square(student='head.shared[0]', in_channels=4, out_channels=6)), teacher, Picky()
    )
    assert float(distiller.loss(*batch())['kd.a.loss']) > 0


def test_public_names():
    assert all(hasattr(mmkd, name) for name in mmkd.__all__)
    assert MODELS.get('mmkd.Distiller') is Distiller
