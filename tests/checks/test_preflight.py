"""What is proved before the first step."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkd.building import build_objective
from mmkd.checks.preflight import (
    PreflightHook,
    check_company,
    check_learner,
    check_numbers,
    check_optimised,
    full_precision,
    score_teacher,
)
from mmkd.distiller import Distiller
from mmkd.evaluation import Accuracy
from mmkd.methods.cwd import CWD
from mmkd.methods.feature_gan import FeatureGAN
from mmkd.schedule import Schedule
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, class_labels, pixels
from mmkd.trains import Trains


class Shown(BaseMetric):
    """How many samples there were, and the mean of what the model said."""

    def process(self, data_batch, data_samples):
        self.results += [float(x.mean()) for x in data_samples]

    def compute_metrics(self, results):
        return dict(count=len(results), mean=sum(results) / len(results))


class Images(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b', 'c'))

    def __len__(self):
        return 5

    def __getitem__(self, index):
        torch.rand(1)  # augmentation draws numbers
        return dict(
            inputs=pixels(1, (32, 32), index)[0], data_samples=class_labels(torch.tensor([0]))[0]
        )


def toy(score=0, **teacher):
    torch.manual_seed(0)
    return Distiller(
        ToyNet(),
        dict(cwd=CWD(student='neck', tau=1)),
        Teacher(ToyNet(6), checkpoint='random', **teacher),
        preflight=dict(score=score),
    )


def runner_of(model, lines, optim_wrapper=None, val=True):
    loader = SimpleNamespace(dataset=Images(), collate_fn=pseudo_collate)
    return SimpleNamespace(
        model=model,
        logger=SimpleNamespace(info=lines.append),
        optim_wrapper=optim_wrapper
        or build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1))),
        train_dataloader=loader,
        val_loop=object() if val else None,
        val_dataloader=loader,
        val_evaluator=Evaluator(Shown()),
        iter=0,
        max_iters=100,
    )


def test_the_plan_is_printed_and_no_score_by_default():
    lines = []
    PreflightHook().before_train(runner_of(toy(), lines))
    assert len(lines) == 1 and 'objective cwd: CWD' in lines[0]
    PreflightHook().before_train(runner_of(ToyNet(), lines))
    assert len(lines) == 1


def test_an_objective_that_sleeps_through_the_run_is_reported(log):
    for weight, text in (
        (dict(value=2.0, start=100), '2, start 100'),
        (dict(value=1.0, start=0.5, stop=0.4), '1, start 0.5, stop 0.4'),
    ):
        model = toy()
        model.objectives['cwd'].weight = Schedule.of(weight)
        PreflightHook().before_train(runner_of(model, []))
        message = (
            f"objective 'cwd' has no effect: this run has 100 iterations, and its weight is {text}"
        )
        assert message in log.text
        log.clear()
    for weight in (0, 1, dict(value=2.0, start=99), dict(value=2.0, start=98, warmup=1000)):
        model = toy()
        model.objectives['cwd'].weight = Schedule.of(weight)
        PreflightHook().before_train(runner_of(model, []))
        assert 'has no effect' not in log.text, weight


@pytest.mark.parametrize(
    ('weight', 'task_weight', 'told'),
    [
        (0, 0.1, True),
        (0, dict(loss=0.5), True),
        (0, 1.0, False),
        (0, dict(loss=1), False),
        (1, 0.1, False),
    ],
)
def test_a_baseline_that_is_none(log, weight, task_weight, told):
    model = toy()
    model.objectives['cwd'].weight = Schedule.of(weight)
    model.task_weight = task_weight
    PreflightHook().before_train(runner_of(model, []))
    assert ('this is not plain training. Set task_weight=1' in log.text) == told


def test_a_run_that_distils_nothing_says_so(log):
    model = toy()
    model.teachers['other'] = model.teachers['teacher']
    model.objectives['cwd'].teacher_names = ('teacher',)
    PreflightHook().before_train(runner_of(model, []))
    assert "teacher 'other' is loaded, but no objective uses it" in log.text
    plain = Distiller(ToyNet(), {}, task_weight=0.5)
    PreflightHook().before_train(runner_of(plain, []))
    assert 'model.objectives is empty: this run trains the student without dist' in log.text
    assert 'nothing is distilled, but task_weight=0.5 still scales' in log.text


@pytest.mark.parametrize('dtype', [None, 'bf16'])
def test_a_student_with_its_teachers_weights_is_reported(log, dtype):
    student, said = ToyNet(), 'starts with the same weights as teacher'
    teacher = Teacher(copy.deepcopy(student), checkpoint='random', dtype=dtype)
    model = Distiller(student, dict(cwd=CWD(student='neck', tau=1)), teacher)
    runner = runner_of(model, [])
    PreflightHook().before_train(runner)
    assert said in log.text
    log.clear()
    model.objectives['cwd'].weight = Schedule.of(0)
    PreflightHook().before_train(runner)
    model.objectives['cwd'].weight = Schedule.of(1)
    with torch.no_grad():
        next(student.parameters()).add_(1)
    PreflightHook().before_train(runner)
    assert said not in log.text


def test_an_adapter_outside_every_optimiser_is_named():
    model = toy()
    only = [p for n, p in model.named_parameters() if not n.startswith('objectives')]
    wrapper = SimpleNamespace(param_groups=[dict(params=only)])
    with pytest.raises(RuntimeError, match='no optimiser updates cwd.adapters.0.conv.weight'):
        PreflightHook().before_train(runner_of(model, [], wrapper))
    several = dict(
        a=wrapper, b=SimpleNamespace(param_groups=[dict(params=model.objectives.parameters())])
    )
    check_optimised(nn.ModuleDict(), several)


def test_a_student_inherits_when_training_begins_and_not_when_it_goes_on():
    model, lines = toy(), []
    runner = runner_of(model, lines)
    calls = []
    (objective,) = model.objectives.values()
    objective.inherit = lambda *networks: calls.append(networks)
    PreflightHook().before_train(runner)
    assert calls == [(model.student, model.teachers['teacher'].model)]
    runner.iter = 7
    PreflightHook().before_train(runner)
    assert len(calls) == 1


def test_a_thawed_teacher_is_refused():
    model = toy()
    model.teachers['teacher'].model.train()
    with pytest.raises(RuntimeError, match="teacher 'teacher' is no longer frozen"):
        PreflightHook().before_train(runner_of(model, []))


@pytest.mark.parametrize('options', [dict(), dict(dtype='bf16')])
@pytest.mark.parametrize(('asked', 'shown'), [(3, 3), (99, 5)])
def test_the_teacher_is_scored_by_the_runs_own_metric(asked, shown, options):
    lines, model = [], toy(asked, **options)
    teacher = model.teachers['teacher']
    before = torch.get_rng_state()
    runner = runner_of(model, lines)
    PreflightHook().before_train(runner)
    assert torch.equal(before, torch.get_rng_state()), "the student's random stream moved"
    assert (
        f"teacher 'teacher' on {asked} val samples: {{'count': {float(shown)}, 'mean': " in lines[1]
    )
    assert not runner.val_evaluator.metrics[0].results, "the run's own metric was filled"
    assert next(teacher.model.parameters()).dtype == (torch.bfloat16 if options else torch.float32)
    assert not teacher.model.training


def test_precision_comes_back_after_an_error():
    teacher = toy(dtype='bf16').teachers['teacher']
    with pytest.raises(KeyError), full_precision(teacher):
        assert next(teacher.model.parameters()).dtype == torch.float32
        raise KeyError
    assert next(teacher.model.parameters()).dtype == torch.bfloat16


def test_a_score_without_validation_data_is_refused():
    with pytest.raises(ValueError, match='needs val_dataloader and val_evaluator'):
        model = toy(2)
        score_teacher(runner_of(model, [], val=False), model.teachers['teacher'], 2)


def test_a_number_that_does_not_move_in_this_run_is_reported(log):
    """Its schedule begins after the run ends."""
    objective = build_objective(
        dict(type='mmkd.KD', tau=dict(value=4, start=500, decay='linear', end_value=1, stop=900))
    )
    check_numbers('kd', objective, 1000)
    assert not log.text
    check_numbers('kd', objective, 400)
    assert "objective 'kd': tau has a schedule, 4, start 500, decay linear" in log.text
    assert 'in the 400 iterations of this run it stays 4' in log.text


@pytest.mark.parametrize('model', [toy, ToyNet])
def test_metrics_that_ask_for_more_classes_than_the_data_has(model):
    runner = runner_of(model(), [])
    runner.val_loop = SimpleNamespace(
        dataloader=runner.val_dataloader, evaluator=Evaluator(Accuracy(topk=(1, 5)))
    )
    words = r'topk=\(1, 5\) asks for more classes than the 3 there are; set .*topk=\(1,\)'
    with pytest.raises(ValueError, match=words):
        PreflightHook().before_train(runner)
    runner.val_loop.evaluator = Evaluator(Accuracy(topk=(1, 3)))
    PreflightHook().before_train(runner)


def test_an_objective_whose_learner_does_not_train_is_reported(log):
    def check(trains, **options):
        objective = CWD(student='neck', adapt=None, **options)
        check_learner('cwd', objective, Trains.of(trains))

    check('student')
    check(('objectives', 'peers'), learner='other')
    check('peers', weight=0)
    assert not log.text
    check(('objectives', 'peers'))
    assert "objective 'cwd' has no effect: it teaches 'student', which does not train" in log.text
    assert 'trains: objectives, peers' in log.text


def test_a_critic_that_is_alone_is_reported(log):
    def check(**others):
        check_company('gan', dict(gan=FeatureGAN(), **others))

    check(cwd=CWD(student='neck'))
    check_company('gan', dict(gan=FeatureGAN(weight=0)))
    assert not log.text
    check(cwd=CWD(student='neck', weight=0))
    check(cwd=CWD(student='neck', learner='other'))
    check(second=FeatureGAN())
    assert log.text.count("objective 'gan' is adversarial alone") == 3
