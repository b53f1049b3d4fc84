"""KDGAN: worked numbers of the game, its three players, and their turns."""

import copy
import math

import pytest
import torch
from logit_toys import ZS, ZT, Y
from mmengine.optim import build_optim_wrapper
from segmentation_toys import ToyClassifier, ToySegmentor, prepare
from torch import nn

from mmkd.distiller import Distiller
from mmkd.engine.optimizers import build_optimizers
from mmkd.functional.logit_distances import half_squared_error
from mmkd.methods.kdgan import KDGAN, log_fake, log_real
from mmkd.teacher import Teacher, build_model
from mmkd.testing import class_labels, classification_batch, make_trace, tiny_classifier

SCORE = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)


def near(value):
    return pytest.approx(value, abs=1e-6)


def value(x):
    return float(x.detach())


# ------------------------------------------------------------------------------------ functions


def test_exact_expectation_and_its_gradient():
    z = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    found = log_fake(SCORE, z.softmax(1))
    assert value(found) == near(-1.57928)
    (gradient,) = torch.autograd.grad(found, z)
    assert gradient[0].tolist() == near([-0.364318, 0.309831, 0.054487])


def test_the_expectation_is_the_mean_over_draws():
    q = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    fakes = [math.log(1 - 1 / (1 + math.exp(-s))) for s in SCORE[0].tolist()]
    drawn = torch.multinomial(q[0], 200_000, True, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor(fakes)[drawn].mean()
    assert value(log_fake(SCORE, q)) == pytest.approx(float(mean), abs=1e-2)
    assert value(log_real(SCORE, torch.tensor([2]))) == near(math.log(1 / (1 + math.exp(-0.5))))


def test_at_the_optimum_the_proposals_are_the_data():
    """The best D is q / (q + mix); the value is then least, -2 log 2, where the mix is q."""
    q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def best(mix):
        score = (q / mix).log()
        real = sum(q[y] * log_real(score[None], torch.tensor([y]))[0] for y in range(3))
        return value(real + log_fake(score[None], mix[None])[0])

    assert best(q) == near(-2 * math.log(2))
    for other in ([0.6, 0.2, 0.2], [0.2, 0.3, 0.5], [0.49, 0.31, 0.2]):
        assert best(torch.tensor(other, dtype=torch.float64)) > best(q) + 1e-6


# ------------------------------------------------------------------------------------ objective


def step(objective, student=ZS, teacher=ZT):
    inputs = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sides = {'head.fc': student}, {'head.fc': teacher}
    models = dict(student_model=ToyClassifier(), teacher_model=ToyClassifier())
    return make_trace(*sides, samples=class_labels(Y), inputs=inputs, **models)


def prepared(**options):
    torch.manual_seed(0)
    return prepare(KDGAN(**options), ToyClassifier(), ToyClassifier())


def test_terms_are_those_of_the_game():
    objective = prepared(alpha=0.3, beta=2.0, gamma=0.5).eval()
    teacher = ZT.float().requires_grad_()
    trace = step(objective, teacher=teacher)
    found = {k: value(v) for k, v in objective(trace).items()}
    d = objective.critic(trace.inputs).detach().double().sigmoid()
    rows = range(3)
    p_c, p_t = ZS.softmax(1), ZT.softmax(1)
    of_c, of_t = ((p * (1 - d).log()).sum(1).mean() for p in (p_c, p_t))
    real = sum(d[i, Y[i]].log() for i in rows) / 3
    gap = sum(float((ZS[i] - ZT[i]).square().sum()) for i in rows) / 3 / 2
    right = sum(float(d[i, Y[i]] > 0.5) for i in rows) / 3
    right += float(((0.3 * p_c + 0.7 * p_t) * (d < 0.5)).sum(1).mean())
    wanted = dict(loss_fool=0.3 * of_c, loss_teacher_fool=0.7 * of_t)
    wanted |= dict(loss_mimic=2 * gap, loss_teacher_mimic=0.5 * gap)
    wanted |= dict(loss_critic=-(real + 0.3 * of_c + 0.7 * of_t), accuracy=right / 2)
    assert found == pytest.approx({k: float(v) for k, v in wanted.items()}, rel=1e-4)


def test_each_player_learns_from_its_own_terms():
    objective = prepared()
    student, teacher = (z.float().requires_grad_() for z in (ZS, ZT))
    losses = objective(step(objective, student, teacher))
    critic = list(objective.critic.parameters())
    felt = dict(loss_fool=0, loss_mimic=0, loss_teacher_fool=1, loss_teacher_mimic=1, loss_critic=2)
    for key, who in felt.items():
        found = torch.autograd.grad(
            losses[key], [student, teacher, *critic], allow_unused=True, retain_graph=True
        )
        heard = [found[0] is not None, found[1] is not None, any(g is not None for g in found[2:])]
        assert heard == [who == i for i in range(3)], key


def test_of_alpha_1_without_distances_a_plain_gan_on_labels_is_left():
    objective = prepared(alpha=1.0, beta=0, gamma=0).eval()
    found = objective(step(objective, teacher=ZT.float().requires_grad_()))
    other = objective(step(objective, teacher=-9 * ZT.float().requires_grad_()))
    silent = ('loss_mimic', 'loss_teacher_fool', 'loss_teacher_mimic')
    assert all(value(found[k]) == 0 for k in silent)
    assert all(torch.equal(found[k], other[k]) for k in ('loss_fool', 'loss_critic', 'accuracy'))
    off = [objective.factor_of(k) for k in silent]
    assert off == [0, 0, 0] and objective.factor_of('loss_fool') == 1


def test_a_frozen_teacher_proposes_and_does_not_learn():
    objective = prepared()
    found = objective(step(objective))
    assert set(found) == {'loss_fool', 'loss_mimic', 'loss_critic', 'accuracy'}


def test_relaxed_draws_estimate_the_expectation():
    exact, drawn = prepared().eval(), prepared(relaxation=1e-3).eval()
    torch.manual_seed(1)
    trace = step(exact)
    found = [value(drawn(trace)['loss_fool']) for _ in range(400)]
    assert len(set(found)) > 1
    assert sum(found) / 400 == pytest.approx(value(exact(trace)['loss_fool']), rel=0.05)
    assert drawn.describe() == [
        'discriminator of 38,915 parameters, draws of temperature 0.001 over labels'
    ]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: KDGAN(alpha=1.5), 'alpha must be a finite number from 0 to 1'),
        (lambda: KDGAN(beta=-1), 'beta must be a finite number'),
        (lambda: KDGAN(gamma=-1), 'gamma must be a finite number'),
        (lambda: KDGAN(relaxation=0), 'temperature relaxation must be a finite number above 0'),
        (lambda: KDGAN(width=0), 'width must be a whole number'),
        (lambda: KDGAN().bind(ToySegmentor(), ToySegmentor()), 'for classifiers of images'),
        (lambda: KDGAN().bind(ToyClassifier(1), ToyClassifier(1)), 'over one class'),
        (lambda: KDGAN().bind(ToyClassifier(3), ToyClassifier(4)), 'class counts'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------------------- three players


def game(trains=None, peer=True, **options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width=w)) for w in (4, 8))
    more = dict(peers=dict(big=teacher)) if peer else dict(teacher=Teacher(teacher, 'random'))
    objectives = dict(it=KDGAN(teacher_name='big' if peer else None, width=8, **options))
    more |= dict(trains=trains) if trains else {}
    return Distiller(student, objectives, **more).train()


def players(model):
    named = dict(student=model.student, big=model.peers['big'], critic=model.objectives)
    return {k: copy.deepcopy(dict(m.named_parameters())) for k, m in named.items()}


def train(model, running, steps=1):
    """Who moved in each step."""
    config = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
    build = lambda: build_optim_wrapper(model, config)  # noqa: E731
    optimizers, moves = build_optimizers(model, build, config), []
    for seed in range(steps):
        running(seed, steps)
        before = players(model)
        losses = model.loss(*classification_batch(4, (32, 32), seed=seed))
        optimizers.update_params(model.parse_losses(losses)[0])
        after = players(model)
        moves.append(
            [k for k, v in after.items() if any(not torch.equal(before[k][n], v[n]) for n in v)]
        )
    return moves


def test_all_three_learn_in_one_step(running):
    assert train(game(), running) == [['student', 'big', 'critic']]


def test_the_student_s_gradient_does_not_reach_the_teacher():
    model = game()
    losses = model.loss(*classification_batch(4, (32, 32)))
    for key, who, other in (
        ('loss_mimic', model.student, model.peers['big']),
        ('loss_teacher_mimic', model.peers['big'], model.student),
    ):
        for net, felt in ((who, True), (other, False)):
            found = torch.autograd.grad(
                losses[f'kd.it.{key}'], [*net.parameters()], allow_unused=True, retain_graph=True
            )
            assert any(g is not None and bool(g.any()) for g in found) == felt, key


def test_a_teacher_s_loss_without_a_gradient_is_found():
    model = game()
    objective = model.objectives['it']
    forward = objective.forward

    def broken(trace):
        losses = forward(trace)
        return losses | dict(loss_teacher_mimic=losses['loss_teacher_mimic'].detach())

    objective.forward = broken
    with pytest.raises(RuntimeError, match='it.loss_teacher_mimic has no gradient in'):
        model.loss(*classification_batch(4, (32, 32)))


def test_turns_move_one_player_each(running):
    turns = dict(
        objectives=dict(every=4, count=2),
        peers=dict(every=4, first=2),
        student=dict(every=4, first=3),
    )
    moves = train(game(turns), running, 8)
    assert moves == 2 * [['critic'], ['critic'], ['big'], ['student']]


def test_weight_0_is_plain_training(running):
    model = game(weight=0)
    plain = build_model(tiny_classifier(width=4))
    plain.load_state_dict(copy.deepcopy(model.student.state_dict()))
    train(model, running, 3)
    optimizer = torch.optim.SGD(plain.train().parameters(), 0.05, 0.9)
    for seed in range(3):
        optimizer.zero_grad()
        plain(*classification_batch(4, (32, 32), seed=seed), mode='loss')['loss_cls'].backward()
        optimizer.step()
    found = model.student.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in plain.state_dict().items())


def test_an_untrained_peer_is_told_of_and_a_frozen_teacher_is_not(running, log):
    running(0, 9)
    data = classification_batch(4, (32, 32))
    game(peer=False).loss(*data)
    trained = game()
    for module in trained.peers['big'].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(100)
    trained.loss(*data)
    assert 'KDGAN' not in log.text
    model = game()
    for _ in range(2):
        model.loss(*data)
    assert log.text.count('KDGAN: the teacher has not been trained') == 1


def test_the_mimic_term_is_half_a_sum_of_squares():
    assert value(half_squared_error(ZS, ZT)) == pytest.approx(float((ZS - ZT).square().sum()) / 6)
