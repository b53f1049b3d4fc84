"""SKDHolistic: worked numbers, who learns from what, and the joint step."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from segmentation_toys import ToySegmentor, make_step, prepare
from torch import nn

from mmkd.distiller import Distiller
from mmkd.engine.optimizers import JointOptimWrapper, build_optimizers
from mmkd.methods import skd_holistic
from mmkd.methods.skd_holistic import SKDHolistic, contest, fool, gradient_penalty
from mmkd.teacher import Teacher, build_model
from mmkd.testing import segmentation_batch, tiny_pspnet


class Linear(nn.Module):
    """D(x) = w . x[:, :, 0, 0]."""

    def __init__(self, *w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x):
        return x[:, :, 0, 0] @ self.w


class Square(nn.Module):
    """D(x) = w |x|^2 / 2, whose gradient is w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x):
        return self.w * x.square().flatten(1).sum(1) / 2


def value(x):
    return float(x.detach())


def pixels(*values):
    return torch.tensor(values, dtype=torch.float64)[:, :, None, None]


# ------------------------------------------------------------------------------------ functions


def test_scores_and_losses_of_a_linear_critic():
    critic = Linear(2.0, 1.0)
    student, teacher = pixels((1, 0), (0, -3)), pixels((0, 0.5), (2, 0))  # 2, -3 and 0.5, 4
    assert value(fool(critic, student)) == 0.5
    loss, fake, real = contest(critic, student, teacher, 'wgan-gp')
    assert (value(loss), value(fake), value(real)) == (-0.5 - 2.25, -0.5, 2.25)
    # max(0, 1 - 0.5), max(0, 1 - 4), max(0, 1 + 2), max(0, 1 - 3)
    assert value(contest(critic, student, teacher, 'hinge')[0]) == 0.25 + 1.5


def test_the_student_is_not_the_critic_s_business_nor_the_other_way_round():
    critic, student = Linear(2.0, 1.0), pixels((1, 0), (0, -3)).requires_grad_()
    fool(critic, student).backward()
    assert critic.w.grad is None
    assert student.grad[:, :, 0, 0].tolist() == [[-1, -0.5], [-1, -0.5]]


def test_penalty_of_a_linear_critic():
    critic = Linear(3.0, 4.0)
    maps = pixels((1, 0), (0, -3)), pixels((0, 0.5), (2, 0))
    assert value(gradient_penalty(critic, *maps)) == pytest.approx(16)
    assert value(gradient_penalty(critic, *maps, channels=1)) == pytest.approx(4)
    gradient_penalty(critic, *maps).backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    assert critic.w.grad.tolist() == pytest.approx([8 * 0.6, 8 * 0.8])


def test_penalty_between_student_and_teacher_one_share_an_image():
    critic, student, teacher = Square(), torch.rand(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5)
    teacher = teacher.double()
    torch.manual_seed(5)
    share = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    wanted = 0.0
    for n in range(3):
        x = share[n] * teacher[n] + (1 - share[n]) * student[n]
        wanted += (1.5 * x.square().sum().sqrt() - 1) ** 2 / 3
    torch.manual_seed(5)
    found = gradient_penalty(critic, student, teacher)
    assert value(found) == pytest.approx(float(wanted))
    step = 1e-6
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(critic)
        moved.w.data += sign * step
        torch.manual_seed(5)
        losses.append(value(gradient_penalty(moved, student, teacher)))
    found.backward()
    assert float(critic.w.grad) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)


def test_penalty_where_the_critic_is_flat():
    critic = Linear(0.0, 0.0)
    loss = gradient_penalty(critic, pixels((1, 2)), pixels((3, 4)))
    loss.backward()
    assert value(loss) == pytest.approx(1, abs=1e-5) and critic.w.grad.isfinite().all()


# ------------------------------------------------------------------------------------ objective


def build(**options):
    torch.manual_seed(0)
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(SKDHolistic(**options), student, teacher)
    return objective, make_step(objective, student, teacher), student


def result(objective, trace):
    torch.manual_seed(1)
    twin = copy.deepcopy(objective)  # a step changes statistics and power iterations
    return {k: float(v.detach()) for k, v in twin(trace).items()}


@pytest.fixture(scope='module')
def ordinary():
    """Numbers with the defaults."""
    return result(*build()[:2])


def test_defaults_are_those_of_the_code(ordinary):
    objective, trace, _ = build()
    assert float(str(objective.weight)) == 0.1
    assert objective.optimizer == dict(type='SGD', lr=4e-4, momentum=0.9, weight_decay=5e-4)
    critic, (student, teacher) = copy.deepcopy(objective.critic), objective.inputs(trace)
    assert isinstance(critic.first, nn.BatchNorm2d)
    torch.manual_seed(1)
    wanted = dict(loss_fool=-critic(student).mean())
    wanted |= dict(score_teacher=critic(teacher).mean(), score_student=critic(student).mean())
    penalty = gradient_penalty(critic, student.detach(), teacher)
    gap = wanted['score_student'] - wanted['score_teacher']
    wanted |= dict(penalty=penalty, loss_critic=gap + 10 * penalty)
    assert ordinary == pytest.approx({k: float(v.detach()) for k, v in wanted.items()}, rel=1e-5)


@pytest.mark.parametrize(
    ('options', 'changes'),
    [
        (dict(student_factor=0.01), ['loss_fool']),
        (dict(penalty=1.0), ['loss_critic']),
        (dict(gan_type='hinge', penalty=10.0), ['loss_critic']),
    ],
)
def test_options_that_change_one_term(options, changes, ordinary):
    found = result(*build(**options)[:2])
    assert [k for k in found if found[k] != ordinary[k]] == changes
    if 'student_factor' in options:
        assert found['loss_fool'] == pytest.approx(0.01 * ordinary['loss_fool'])
    elif options == dict(penalty=1.0):
        less = 9 * ordinary['penalty']
        assert found['loss_critic'] == pytest.approx(ordinary['loss_critic'] - less, rel=1e-4)


@pytest.mark.parametrize('options', [dict(gan_type='hinge'), dict(penalty=0.0)])
def test_without_a_penalty(options):
    assert set(result(*build(**options)[:2])) == {
        'loss_fool',
        'loss_critic',
        'score_student',
        'score_teacher',
    }


def test_inputs():
    raw, _ = build()[0].inputs(build()[1])
    for name, kind in (('tanh', nn.Tanh), ('softmax', nn.Identity), ('logits_bn', nn.BatchNorm2d)):
        objective, trace, _ = build(input=name)
        assert type(objective.critic.first) is kind
        seen, _ = objective.inputs(trace)
        torch.testing.assert_close(seen, raw.softmax(1) if name == 'softmax' else raw)


def test_the_image_beside_the_map():
    objective, trace, _ = build(condition_on_image=True, input='softmax')
    student, teacher = objective.inputs(trace)
    assert student.shape == (2, 6, 64, 96)
    assert torch.equal(student[:, 3:], teacher[:, 3:])
    image = nn.functional.interpolate(trace.inputs, (64, 96), mode='bilinear')
    torch.testing.assert_close(student[:, 3:], image)
    both, alone = (
        result(*build(condition_on_image=True, penalty_on=on)[:2])['penalty']
        for on in ('input', 'map')
    )
    assert both != pytest.approx(alone, rel=1e-4)
    inside, outside = (result(*build(penalty_on=on)[:2])['penalty'] for on in ('input', 'map'))
    assert inside == outside


def test_small_maps_are_enlarged_in_proportion_and_it_is_said_once(log):
    objective, trace, _ = build()
    assert trace.student['decode_head.conv_seg'][0].shape[2:] == (4, 6)
    for _ in range(2):
        assert [x.shape[2:] for x in objective.inputs(trace)] == [(64, 96)] * 2
    assert log.text.count('SKDHolistic enlarges logits of 4 x 6 to 64 x 96.') == 1


def test_large_maps_are_left_alone(monkeypatch, log):
    monkeypatch.setattr(skd_holistic, 'LEAST_SIDE', 4)
    objective, trace, _ = build(enlarge=False)
    own = trace.student['decode_head.conv_seg'][0]
    assert objective.inputs(trace)[0].data_ptr() == own.data_ptr()
    assert not log.text


def test_small_maps_may_be_refused():
    objective, trace, _ = build(enlarge=False)
    message = 'logits of 4 x 6 cells are too small .* 64 x 64. Set enlarge=True, or train on larger'
    with pytest.raises(ValueError, match=message):
        objective(trace)


def test_unequal_strides_need_a_resize():
    student, teacher = ToySegmentor(stride=16), ToySegmentor()
    with pytest.raises(ValueError, match='has stride 16 and the teacher.* 8; tap maps'):
        prepare(SKDHolistic(), student, teacher)
    objective = prepare(SKDHolistic(resize='teacher'), student, teacher)
    assert objective(make_step(objective, student, teacher))['loss_critic'].isfinite()


def test_a_narrower_critic():
    objective, trace, _ = build(width=4)
    assert objective.critic.layers[0].out_channels == 4
    assert objective(trace)['loss_critic'].isfinite()


def test_each_side_learns_from_its_own_terms():
    objective, trace, student = build()
    losses = objective(trace)
    learnt, weight = list(objective.parameters()), student.backbone.conv.weight
    inputs = [weight, *learnt]
    of_student = torch.autograd.grad(losses['loss_fool'], inputs, allow_unused=True)
    assert of_student[0].abs().sum() > 0 and of_student[1:] == (None,) * len(learnt)
    of_critic = torch.autograd.grad(losses['loss_critic'], inputs, allow_unused=True)
    assert of_critic[0] is None and all(g.isfinite().all() for g in of_critic[1:])


def test_the_plan_shows_critic_and_optimiser():
    objective, _, _ = build(condition_on_image=True, gan_type='hinge')
    assert objective.describe() == ['critic of 3 channels (logits_bn) and the image, hinge']


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: SKDHolistic(student_factor=-1), 'student_factor must be a finite number'),
        (lambda: SKDHolistic(gan_type='wgan'), 'gan_type must be one of'),
        (lambda: SKDHolistic(penalty=-1), 'penalty must be a finite number'),
        (lambda: SKDHolistic(width=1), 'width must be a whole number of at least 2'),
        (lambda: SKDHolistic(input='logits'), 'input must be one of'),
        (lambda: SKDHolistic(penalty_on='image'), 'penalty_on must be one of'),
        (lambda: SKDHolistic().bind(ToySegmentor(), ToySegmentor(num_classes=4)), '3 .*teacher 4'),
        (
            lambda: SKDHolistic().bind(*(ToySegmentor(num_classes=2, out_channels=1),) * 2),
            'softmax over one class',
        ),
        (lambda: SKDHolistic().bind(nn.Module(), ToySegmentor()), 'without a decode_head'),
        (
            lambda: prepare(
                SKDHolistic(student=['decode_head.conv_seg', 'decode_head.bottleneck']),
                *(ToySegmentor(3), ToySegmentor(3)),
            ),
            'one map of each network, but its taps give 2',
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_head_without_classifier_is_refused():
    student = ToySegmentor()
    del student.decode_head.conv_seg  # and its forward is not mmseg's
    with pytest.raises(
        ValueError, match='gives neither class logits of pixels nor classes and masks'
    ):
        SKDHolistic().bind(student, ToySegmentor())


def test_a_head_that_cannot_be_probed():
    """Its classes are known all the same."""
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = SKDHolistic()
    objective.bind(student, teacher)
    objective.setup(None, None)
    assert objective.critic.classes == 3
    assert objective(make_step(objective, student, teacher))['loss_critic'].isfinite()


# ----------------------------------------------------------------------------------- joint step


def distiller(**options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_pspnet(width=w)) for w in (4, 8))
    objectives = dict(it=SKDHolistic(weight=1.0, width=8, **options))
    return Distiller(student, objectives, Teacher(teacher, checkpoint='random')).train()


@pytest.mark.parametrize('kind', ['SGD', 'Adam'])
def test_joint_step_is_the_student_s_step_and_then_the_critic_s(kind):
    """As in the authors' code: the critic takes the maps that the student had before its step."""
    own = dict(type=kind, lr=1e-2)
    joint = distiller(optimizer=own)
    apart = copy.deepcopy(joint)
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=dict(max_norm=1.0))
    optimizers = build_optimizers(joint, lambda: build_optim_wrapper(joint, config))
    assert isinstance(optimizers, JointOptimWrapper)
    players = apart.student.parameters(), apart.objectives.parameters()
    first, second = map(list, players)
    steps = torch.optim.SGD(first, 0.1, 0.9), getattr(torch.optim, kind)(second, 1e-2)
    objective = apart.objectives['it']
    for step in range(3):
        data = segmentation_batch(2, (64, 64), seed=step)
        torch.manual_seed(step)
        losses = joint.loss(*data)
        optimizers.update_params(joint.parse_losses(losses)[0])

        torch.manual_seed(step)
        with apart.recorder.record(data[0]) as side:
            task = apart.student(*data, mode='loss')
        trace = _trace(apart, data, side)
        student, teacher = objective.inputs(trace)
        total = apart.parse_losses(task)[0] + fool(objective.critic, student)
        before = copy.deepcopy(objective.critic.state_dict())
        steps[0].zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(first, 1.0)
        steps[0].step()
        after = objective.critic.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.items())

        frozen = copy.deepcopy(apart.student.state_dict())
        student = student.detach()
        loss, _, _ = contest(objective.critic, student, teacher, 'wgan-gp')
        loss = loss + 10 * gradient_penalty(objective.critic, student, teacher)
        steps[1].zero_grad()
        loss.backward()
        steps[1].step()
        now = apart.student.state_dict()
        assert all(torch.equal(now[k], v) for k, v in frozen.items())
        assert value(loss) == value(losses['kd.it.loss_critic'])
    found, wanted = joint.state_dict(), apart.state_dict()
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


def _trace(model, data, side):
    from mmkd.tap import Trace

    return Trace(*data, side, model._run_teachers(['it'], *data)['teacher'])


def test_the_critic_computes_in_float32_under_autocast():
    model = distiller()
    seen = []
    model.objectives['it'].critic.register_forward_hook(
        lambda _m, args, out: seen.append((args[0].dtype, out.dtype))
    )
    data = segmentation_batch(2, (64, 96))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert model.student.decode_head.conv_seg(torch.rand(1, 8, 4, 4)).dtype == torch.bfloat16
        losses = model.loss(*data)
    assert seen == [(torch.float32, torch.float32)] * 4
    model.parse_losses(losses)[0].backward()
    assert all(p.grad.isfinite().all() for p in model.objectives.parameters())
