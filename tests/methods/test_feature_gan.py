"""FeatureGAN: worked numbers of its forms, who learns from what, and the joint step."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from segmentation_toys import ToySegmentor, prepare
from torch import nn

from mmkd.distiller import Distiller
from mmkd.engine.optimizers import build_optimizers
from mmkd.methods.feature_gan import FeatureGAN, contest, fool
from mmkd.methods.kd import KD
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, make_trace, ready, tiny_classifier


def scores(*values):
    return torch.tensor(values, dtype=torch.float64)


def value(x):
    return float(x.detach())


# ------------------------------------------------------------------------------------ functions


def test_worked_numbers():
    half, nothing = scores(0.5, 0.5), scores(0, 0)
    assert value(contest(half, half, 'lsgan')) == value(fool(half, 'lsgan')) == 0.25
    real, fake = scores(0.8, 0.6), scores(0.3, 0.1)
    assert value(contest(real, fake, 'lsgan')) == pytest.approx(0.075)
    assert value(fool(fake, 'lsgan')) == pytest.approx(0.65)
    assert value(contest(nothing, nothing, 'hinge')) == 2
    assert value(fool(fake, 'hinge')) == pytest.approx(-0.2)
    assert value(contest(nothing, nothing, 'bce')) == pytest.approx(1.386294, abs=1e-6)
    assert value(fool(nothing, 'bce')) == pytest.approx(0.693147, abs=1e-6)


# ------------------------------------------------------------------------------------ objective

S, T = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 8, 8)


def objective_on(student=S, teacher=T, **options):
    torch.manual_seed(0)
    trace = make_trace({'x': student}, {'x': teacher})
    return ready(FeatureGAN('x', **options), trace), trace


@pytest.mark.parametrize('form', ['lsgan', 'hinge', 'bce'])
def test_the_loss_is_that_of_the_form(form):
    objective, trace = objective_on(form=form)
    objective.eval()
    found = {k: value(v) for k, v in objective(trace).items()}
    ((own, wanted),) = objective.tensor_pairs(trace)
    real, fake = (objective.critics[0](x).detach() for x in (wanted, own))
    assert real.shape == (2, 1, 2, 2)
    middle = 0.5 if form == 'lsgan' else 0
    right = (real > middle).float().mean() + (fake < middle).float().mean()
    wanted = dict(loss_fool=fool(fake, form), loss_critic=contest(real, fake, form))
    wanted |= dict(accuracy=right / 2)
    assert found == pytest.approx({k: value(v) for k, v in wanted.items()}, rel=1e-5)


def test_each_side_learns_from_its_own_terms():
    student = S.clone().requires_grad_()
    objective, trace = objective_on(student)
    losses = objective(trace)
    critic, adapter = (list(x.parameters()) for x in (objective.critics, objective.adapters))
    everyone = [student, *adapter, *critic]
    found = torch.autograd.grad(losses['loss_fool'], everyone, allow_unused=True)
    assert all(g.any() for g in found[: 1 + len(adapter)])
    assert found[1 + len(adapter) :] == (None,) * len(critic)
    found = torch.autograd.grad(losses['loss_critic'], everyone, allow_unused=True)
    assert found[: 1 + len(adapter)] == (None,) * (1 + len(adapter))
    assert all(g.any() for g in found[1 + len(adapter) :])


def test_a_constant_critic_teaches_nothing():
    student = S.clone().requires_grad_()
    objective, trace = objective_on(student)
    nn.init.zeros_(objective.critics[0][-1].weight)
    (gradient,) = torch.autograd.grad(objective(trace)['loss_fool'], student)
    assert not gradient.any()


def test_every_pair_has_a_critic():
    a, b = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)
    trace = make_trace({'a': a, 'b': b}, {'a': T, 'b': b})
    objective = ready(FeatureGAN(['a', 'b'], width=8), trace)
    assert [c[0][0].in_channels for c in objective.critics] == [5, 4]
    assert objective.describe()[-1] == '2 critic(s) of patches, lsgan'
    assert objective(trace)['loss_critic'].isfinite()


def test_one_image_is_enough():
    objective, _ = objective_on()
    found = objective(make_trace({'x': S[:1, :, :2, :2]}, {'x': T[:1, :, :2, :2]}))
    assert all(v.isfinite() for v in found.values())


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: FeatureGAN(form='wgan'), 'form must be one of'),
        (lambda: FeatureGAN(width=0), 'width must be a whole number of at least 1'),
        (lambda: objective_on(torch.rand(2, 3), torch.rand(2, 3)), 'compares feature maps'),
        (
            lambda: (lambda o, _: o(make_trace({'x': S[:, :, :1, :3]}, {'x': T[:, :, :1, :3]})))(
                *objective_on()
            ),
            'a map of 1 x 3 cells has no patches',
        ),
        (
            lambda: objective_on(S[:, :, :1, :1], T[:, :, :1, :1]),
            'a map of 1 x 1 cells has no patches',
        ),
        (lambda: FeatureGAN().bind(ToySegmentor(), ToySegmentor()), 'taps of its own for class'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_maps_of_a_segmentor():
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(FeatureGAN('backbone[0]'), *models)
    assert objective.critics[0][0][0].in_channels == 6


# ----------------------------------------------------------------------------------- joint step


def distiller(weight=1.0, **options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width=w)) for w in (4, 8))
    objectives = dict(it=FeatureGAN(weight=weight, width=8, **options))
    return Distiller(student, objectives, Teacher(teacher, checkpoint='random')).train()


def optimizers_of(model):
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    return build_optimizers(model, lambda: build_optim_wrapper(model, config))


def test_joint_step_is_the_student_s_step_and_then_the_critic_s():
    """The student's gradient with the critic as constants is that of two separate steps."""
    joint = distiller(adapt='conv1x1', optimizer=dict(type='SGD', lr=1e-2))
    apart = copy.deepcopy(joint)
    objective = apart.objectives['it']
    optimizers = optimizers_of(joint)
    first = torch.optim.SGD(apart.student.parameters(), 0.1, 0.9)
    adapter = torch.optim.SGD(objective.adapters.parameters(), 1e-2)
    second = torch.optim.SGD(objective.critics.parameters(), 1e-2)
    for seed in range(3):
        data = classification_batch(4, (32, 32), seed=seed)
        losses = joint.loss(*data)
        optimizers.update_params(joint.parse_losses(losses)[0])

        with apart.recorder.record(data[0]) as side:
            task = apart.student(*data, mode='loss')
        sides = apart._run_teachers(['it'], *data)
        trace = apart.trace('it', {'student': (side, data[1])}, sides, 0.0)
        ((own, wanted),) = objective.tensor_pairs(trace)
        critic = objective.critics[0].requires_grad_(False)
        total = apart.parse_losses(task)[0] + fool(critic(own), 'lsgan')
        for optimizer in (first, adapter):
            optimizer.zero_grad()
        total.backward()
        critic.requires_grad_(True)
        second.zero_grad()
        real = critic(wanted)
        contest(real, critic(own.detach()), 'lsgan').backward()
        for optimizer in (first, adapter, second):
            optimizer.step()
    wanted = apart.state_dict()
    for key, tensor in joint.state_dict().items():
        if 'certainty' not in key:
            torch.testing.assert_close(tensor, wanted[key], msg=key)


def test_weight_0_is_plain_training():
    model = distiller(0.0)
    plain = build_model(tiny_classifier(width=4))
    plain.load_state_dict(copy.deepcopy(model.student.state_dict()))
    optimizer, optimizers = (
        torch.optim.SGD(plain.train().parameters(), 0.1, 0.9),
        optimizers_of(model),
    )
    for seed in range(3):
        data = classification_batch(4, (32, 32), seed=seed)
        optimizers.update_params(model.parse_losses(model.loss(*data))[0])
        optimizer.zero_grad()
        plain(*data, mode='loss')['loss_cls'].backward()
        optimizer.step()
    found = model.student.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in plain.state_dict().items())


def test_two_peers_with_a_critic_each():
    torch.manual_seed(0)
    objectives = dict(
        down=FeatureGAN(teacher_name='other', width=8),
        up=FeatureGAN(learner='other', teacher_name='student', width=8),
        kd=KD(teacher_name='other'),
    )
    peers = dict(other=tiny_classifier(width=8))
    model = Distiller(build_model(tiny_classifier(width=4)), objectives, peers=peers).train()
    losses = model.loss(*classification_batch(4, (32, 32)))
    nets = dict(student=model.student, other=model.peers['other'])
    for name, own, foreign in (('down', 'student', 'other'), ('up', 'other', 'student')):
        for net, felt in ((own, True), (foreign, False)):
            parameters = list(nets[net].backbone.parameters())
            grads = torch.autograd.grad(
                losses[f'kd.{name}.loss_fool'], parameters, allow_unused=True, retain_graph=True
            )
            assert any(g is not None and bool(g.any()) for g in grads) == felt
