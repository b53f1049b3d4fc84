"""The guard of the first steps: every way of teaching nothing is one clear message."""

import pytest
import torch
from torch import nn

from mmkd.checks import guard
from mmkd.checks.guard import Guard, has_ground_truth
from mmkd.distiller import Distiller
from mmkd.functional.gradients import gradients_at
from mmkd.objective import Objective, PairObjective
from mmkd.tap import TapError
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, boxes, class_labels, label_maps, pixels


class It(PairObjective):
    """``change`` is applied to the loss before it is returned."""

    taps = 'neck[0]'

    def __init__(self, change=lambda x: x, **kwargs):
        super().__init__(**kwargs)
        self.change = change

    def compare(self, student, teacher):
        return self.change((student - teacher).square().mean())


class WithBoxes(It):
    needs_ground_truth = True


def toy(objective, preflight=True, teacher=None, **options):
    torch.manual_seed(0)
    teacher = Teacher(teacher or ToyNet(6), checkpoint='random')
    return Distiller(ToyNet(), dict(it=objective), teacher, preflight=preflight, **options)


def run(distiller, steps=5, samples=None):
    for _ in range(steps):
        losses = distiller.loss(pixels(), samples or class_labels(torch.arange(2)))
        distiller.parse_losses(losses)[0].backward()


def test_a_sound_run_says_so_once(log):
    distiller = toy(It())
    run(distiller, 7)
    assert log.text.count("preflight: objective 'it' is live: kd.it.loss = ") == 1
    assert distiller.guard.seen == {'it': 5}


def test_a_detached_student_is_found_in_the_first_step():
    class Detached(It):
        def compare(self, student, teacher):
            return (student.detach() - teacher).square().mean()

    with pytest.raises(
        RuntimeError, match=r'kd.it.loss does not depend on the student.*detach\(\)'
    ):
        run(toy(Detached(adapt='conv1x1')), 1)


def test_an_adapter_that_is_the_only_thing_to_learn_is_found():
    """The loss has a gradient, but none into the student."""

    class Head(It):
        def compare(self, student, teacher):
            return self.adapters['0'].conv.weight.square().mean() + 0 * teacher.mean()

    with pytest.raises(RuntimeError, match='does not depend on the student'):
        run(toy(Head(adapt='conv1x1')), 1)


def test_an_argument_tap_without_a_gradient_is_found():
    distiller = toy(It(student='head.fc@in[0]', adapt=None), teacher=ToyNet(4))
    for parameter in (*distiller.backbone.parameters(), *distiller.neck.parameters()):
        parameter.requires_grad_(False)
    distiller.head.shared.requires_grad_(False)
    with pytest.raises((RuntimeError, TapError), match='gradient|does not depend'):
        run(distiller, 1)


def test_a_dead_term_stops_after_the_guarded_steps():
    distiller = toy(It(lambda x: x * 0))
    run(distiller, 4)
    with pytest.raises(
        RuntimeError, match='kd.it.loss: zero, or without a gradient, in all of the first 5'
    ):
        run(distiller, 1)
    run(toy(It(lambda x: x * 0), preflight=False), 7)
    with pytest.raises(RuntimeError, match='first 2 steps'):
        run(toy(It(lambda x: x * 0), preflight=dict(steps=2)), 2)


def test_a_gradient_that_float16_alone_rounds_to_0_is_alive():
    """Loss scaling, which multiplies the loss by 65536 at first, keeps it."""
    with torch.autocast('cpu', dtype=torch.float16):
        distiller = toy(It(lambda x: x * 1e-8, student='neck.conv', teacher='neck.conv'))
        run(distiller)
        assert distiller.guard.alive == {'kd.it.loss'}
        with pytest.raises(RuntimeError, match='kd.it.loss: zero, or without a gradient'):
            run(toy(It(lambda x: x * 0)))


def test_ranks_guard_the_same_steps(monkeypatch):
    """A batch without boxes on another rank counts on none: a SyncBN in a term waits for all."""
    told = iter([0.0, 1.0, 1.0])
    monkeypatch.setattr(guard, 'all_reduce', lambda flag, op: flag.clamp_(max=next(told)))
    distiller = toy(It(), preflight=dict(steps=2))
    run(distiller, 2)
    assert distiller.guard.seen == {'it': 1}
    run(distiller, 3)
    assert distiller.guard.seen == {'it': 2}


def test_one_live_step_is_enough():
    values = iter([0, 0, 1, 0, 0, 0])
    run(toy(It(lambda x: x * next(values))), 6)


def test_a_term_of_several_is_named():
    class Two(It):
        def forward(self, trace):
            x = super().forward(trace)['loss']
            return dict(loss_live=x, loss_dead=x * 0)

    with pytest.raises(RuntimeError, match='^kd.it.loss_dead: zero'):
        run(toy(Two()))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_stops_the_run_by_name_at_any_step(value):
    values = iter([1.0] * 7 + [value])
    distiller = toy(It(lambda x: x * next(values)))
    run(distiller, 7)
    with pytest.raises(
        FloatingPointError, match=r'stopped before the update: kd.it.loss = (nan|inf)'
    ):
        run(distiller, 1)


def test_the_students_own_loss_counts_too():
    distiller = toy(It())
    nn.init.constant_(distiller.head.fc.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='loss_cls = nan'):
        run(distiller, 1)


def test_a_teacher_that_is_not_finite_is_named():
    teacher = ToyNet(6)
    nn.init.constant_(teacher.neck.conv.weight, float('inf'))
    with pytest.raises(FloatingPointError, match='nan|infinity'):
        run(toy(It(lambda x: x.nan_to_num()), teacher=teacher), 1)
    with pytest.raises(
        FloatingPointError, match=r"teacher 'teacher': its 'neck\[0\]', .* holds NaN or infinity"
    ):
        run(toy(It(lambda x: x.nan_to_num(posinf=1.0)), teacher=teacher), 1)
    with pytest.raises(FloatingPointError, match="^teacher 'teacher': its"):
        run(toy(It(), teacher=teacher, preflight=False), 1)


def test_pixels_that_are_not_finite_are_no_fault_of_the_teacher():
    distiller = toy(It(), preflight=False)
    samples = class_labels(torch.arange(2))
    samples[0].set_metainfo(dict(img_path='black.png'))
    with pytest.raises(FloatingPointError, match=r'pixels of a batch .*\(black.png, without'):
        distiller.loss(pixels() * float('nan'), samples)


def test_a_term_far_above_the_task_loss_is_reported_once(log):
    run(toy(It(weight=1e6)), 5)
    assert log.text.count('kd.it.loss = ') - log.text.count('is live') == 1
    assert 'more than 100 times the task loss' in log.text
    log.clear()
    run(toy(It(weight=1e6), preflight=dict(ratio=1e12)), 5)
    assert 'more than' not in log.text


def test_a_factor_for_a_loss_that_is_not_there():
    with pytest.raises(
        ValueError, match=r"no loss of the student contains 'rpn', 'box'; it has loss"
    ):
        run(toy(It(), task_weight=dict(loss=0.5, rpn=2.0, box=1.0)), 1)
    run(toy(It(), task_weight=dict(loss=0.5)), 1)
    run(toy(It(), task_weight=dict(rpn=0.5), preflight=False), 1)


def test_batches_without_objects_may_be_zero_and_do_not_count():
    dead_without_boxes = lambda x: x * 0  # noqa: E731
    distiller = toy(WithBoxes(dead_without_boxes))
    empty = boxes([], [])
    run(distiller, 12, empty)
    assert distiller.guard.seen.get('it', 0) == 0
    with pytest.raises(RuntimeError, match='has no effect'):
        run(distiller, 5, boxes([[0, 0, 9, 9]], []))


class Background(It):
    """Needs no ground truth by itself, but one of its terms does."""

    term_factors = {'loss_objects': 'alpha'}

    def __init__(self, alpha=1.0, **kwargs):
        super().__init__(**kwargs)
        self.alpha = alpha

    def forward(self, trace):
        x = super().forward(trace)['loss']
        count = sum(len(sample.gt_instances) for sample in trace.samples)
        return dict(loss=x, loss_objects=self.alpha * x * count, cells=torch.tensor(float(count)))


def test_ground_truth_is_needed_by_each_term():
    empty, full = boxes([], []), boxes([[0, 0, 9, 9]], [])
    distiller = toy(Background())
    run(distiller, 12, empty)
    run(distiller, 5, full)
    assert distiller.guard.seen == {'it': 5}
    # Once a term has lived, batches without objects count as well.
    distiller = toy(Background())
    run(distiller, 1, full)
    run(distiller, 4, empty)
    assert distiller.guard.seen == {'it': 5}


def test_a_dead_term_that_is_never_told_is_no_longer_waited_for(monkeypatch):
    monkeypatch.setattr('mmkd.checks.guard.PATIENCE', 3)
    distiller = toy(Background())
    run(distiller, 8, boxes([], []))
    assert distiller.guard.seen == {'it': 5}


class Late(It):
    """As BSS: nothing is attacked while the student classifies nothing correctly."""

    late_losses = ('loss_late',)
    begins = 8

    def forward(self, trace):
        self.steps = getattr(self, 'steps', 0) + 1
        x = super().forward(trace)['loss']
        return dict(loss=x, loss_late=x * (self.steps > self.begins))


def test_a_late_term_is_waited_for(monkeypatch):
    distiller = toy(Late())
    run(distiller, 8)
    assert not distiller.guard.seen
    run(distiller, 5)
    assert distiller.guard.seen == {'it': 5}
    monkeypatch.setattr(Late, 'late_losses', ())
    with pytest.raises(RuntimeError, match='^kd.it.loss_late: zero'):
        run(toy(Late()), 5)
    monkeypatch.setattr('mmkd.checks.guard.PATIENCE', 3)
    monkeypatch.setattr(Late, 'late_losses', ('loss_late',))
    run(toy(Late()), 8)


def test_pixels_that_are_all_ignored_are_no_ground_truth():
    dead = toy(It(lambda x: x * 0))
    run(dead, 7, label_maps(torch.full((2, 64, 96), 255)))
    assert not dead.guard.seen
    with pytest.raises(RuntimeError, match='has no effect'):
        run(dead, 5, label_maps(torch.zeros(2, 64, 96).long()))


def test_a_term_of_factor_0_is_not_judged():
    run(toy(Background(alpha=0.0)), 6, boxes([[0, 0, 9, 9]], []))
    with pytest.raises(RuntimeError, match='^kd.it.loss_objects: zero'):
        run(toy(Background(alpha=1e-60)), 6, boxes([[0, 0, 9, 9]], []))


def test_a_dead_terms_message_prints_what_was_counted():
    class Masked(It):
        def forward(self, trace):
            return dict(loss=super().forward(trace)['loss'] * 0, cells=torch.tensor(0.0))

    with pytest.raises(RuntimeError, match='has no effect. The last step logged cells = 0. Is'):
        run(toy(Masked()))


def test_a_gradient_that_is_not_a_number_is_not_alive():
    """The root of zero: the loss is 0 and finite, its gradient is not."""
    broken = It(lambda x: (x * 0).sqrt() + 1)
    with pytest.raises(FloatingPointError, match='kd.it.loss is finite, but its gradient in'):
        run(toy(broken), 1)


def test_a_term_that_makes_up_nearly_all_is_mentioned_once(log):
    distiller = toy(It(weight=500.0))
    run(distiller, 6)
    assert log.text.count('of the total loss') == 1 and 'kd.it.loss = ' in log.text
    assert 'more than 100 times' not in log.text
    log.clear()
    run(toy(It()), 6)
    assert 'of the total loss' not in log.text


def test_ground_truth():
    assert not has_ground_truth(boxes([], []))
    assert has_ground_truth(boxes([], [[0, 0, 9, 9]]))
    assert has_ground_truth(label_maps(torch.zeros(1, 4, 4).long()))
    assert has_ground_truth(label_maps(torch.full((1, 4, 4), 255)), ignore_index=0)
    assert not has_ground_truth(label_maps(torch.full((1, 4, 4), 255)))
    assert has_ground_truth(class_labels(torch.arange(2)))


def test_a_resting_objective_is_watched_when_it_starts(running):
    distiller = toy(It(lambda x: x * 0, weight=dict(start=50)))
    running(0)
    run(distiller, 10)
    assert not distiller.guard.seen
    running(60)
    with pytest.raises(RuntimeError, match='has no effect'):
        run(distiller, 5)


@pytest.mark.parametrize(
    'preflight',
    [dict(steps=-1), dict(ratio=float('inf')), dict(score=1.5), dict(stepz=3), 'False', None],
)
def test_bad_options(preflight):
    with pytest.raises((ValueError, TypeError), match='preflight'):
        Guard.of(preflight)


def test_a_silent_student_tap_stops_the_first_step():
    class Sometimes(ToyNet):
        def extract_feat(self, inputs):
            return super().extract_feat(inputs) if not self.training else (self.backbone(inputs),)

    torch.manual_seed(0)
    distiller = Distiller(Sometimes(), dict(it=It()), Teacher(ToyNet(), checkpoint='random'))
    distiller.train()
    with pytest.raises(TapError, match="Tap 'neck\\[0\\]' of Sometimes saw nothing"):
        run(distiller, 1)


def test_an_objective_that_returns_no_scalar_tensor_is_told():
    class Rows(Objective):
        taps = 'neck'

        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, trace):
            return self.value(trace.student['neck'][0])

    for value in (
        lambda x: x.mean((1, 2, 3)),
        lambda x: 0.5,
        lambda x: dict(loss=x.mean(), note=3),
    ):
        with pytest.raises(TypeError, match="objective 'it' returned"):
            run(toy(Rows(value)), 1)


class WithCritic(It):
    """A term for the student, and one for what the objective learns; ``see`` comes before that."""

    own_losses = ('loss_own',)

    def __init__(self, see=torch.Tensor.detach, learn=lambda x: x, **kwargs):
        super().__init__(**kwargs)
        self.see, self.learn = see, learn
        self.factor = nn.Parameter(torch.ones(1))

    def compare(self, student, teacher):
        own = self.learn(self.factor * 1e6) * self.see(student).square().mean()
        return dict(loss=(student - teacher).square().mean(), loss_own=own)

    def forward(self, trace):
        return self.compare(*self.tensor_pairs(trace)[0])


def test_losses_of_what_an_objective_learns_need_no_student(log):
    run(toy(WithCritic()), 5)
    assert "objective 'it' is live: kd.it.loss = " in log.text
    assert 'dominate' not in log.text, 'it competes with no loss of the student'


def test_losses_of_what_an_objective_learns_must_not_reach_the_student():
    with pytest.raises(
        RuntimeError, match=r"kd.it.loss_own has a gradient in the student.*'it' alone"
    ):
        run(toy(WithCritic(see=lambda x: x)), 1)


@pytest.mark.parametrize(
    'learn, message',
    [
        (torch.Tensor.detach, "kd.it.loss_own has no gradient in the parameters of 'it'"),
        (lambda x: x * 0, 'kd.it.loss_own: zero, or without a gradient'),
    ],
)
def test_losses_that_train_nothing_are_found(learn, message):
    with pytest.raises(RuntimeError, match=message):
        run(toy(WithCritic(learn=learn)))


class Critic(It):
    """Learns to tell; the student's term has no parameter of its own."""

    own_losses = ('loss_critic',)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, trace):
        student, teacher = trace.student['neck[0]'][0], trace.teacher['neck[0]'][0].mean(1)
        own = (self.scale * student.detach().mean(1) - teacher).square().mean()
        return dict(loss=student.square().mean(), loss_critic=own)


def test_where_the_student_rests_the_objective_must_learn(log):
    """Its own terms are checked, those for the student are not waited for."""
    run(distiller := toy(Critic(), teacher=ToyNet(), trains='objectives'))
    assert "'it' is live: kd.it.loss = " in log.text and distiller.guard.alive == {
        'kd.it.loss_critic'
    }
    assert 'does not depend' not in log.text and 'of the total loss' not in log.text

    class Forgetful(Critic):
        def forward(self, trace):
            return dict(loss=trace.student['neck[0]'][0].square().mean())

    message = r"objective 'it' trains nothing: the student rests \(trains=…\).* own 1 parameters"
    with pytest.raises(RuntimeError, match=message):
        run(toy(Forgetful(), teacher=ToyNet(), trains='objectives'), 1)


def test_a_resting_learner_costs_no_backward_pass_in_later_steps(monkeypatch):
    passes = []

    def counted(*given):
        passes.append(1)
        return gradients_at(*given)

    monkeypatch.setattr(guard, 'gradients_at', counted)
    distiller = toy(Critic(), teacher=ToyNet(), trains='objectives', preflight=dict(steps=2))
    run(distiller, 2)
    watched = len(passes)
    run(distiller, 3)
    assert len(passes) == watched > 0
    passes.clear()
    run(toy(Critic(), teacher=ToyNet(), trains='objectives', preflight=False), 3)
    assert len(passes) == 1  # of the one loss that might be the student's, in the first step


def test_where_objectives_rest_their_own_terms_are_not_judged(log):
    distiller = toy(Critic(), teacher=ToyNet(), trains='student')
    run(distiller)
    assert "'it' is live" in log.text and distiller.guard.alive == {'kd.it.loss'}
