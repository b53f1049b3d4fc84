"""AdversarialLogits: worked numbers, who learns from what, and images without labels."""

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
from mmkd.methods.adversarial_logits import (
    STUDENT,
    TEACHER,
    AdversarialLogits,
    condition,
    origin,
)
from mmkd.structures import LABELLED
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    class_labels,
    classification_batch,
    make_trace,
    tiny_classifier,
    tiny_faster_rcnn,
)

ANSWER = torch.tensor([[0.5, -0.2, 0.1, 1.2, 0.3]], dtype=torch.float64)


def near(value):
    return pytest.approx(value, abs=1e-6)


def prepared(**options):
    torch.manual_seed(0)
    return prepare(AdversarialLogits(**options), ToyClassifier(), ToyClassifier())


def step(student=ZS, teacher=ZT, samples=None):
    samples = class_labels(Y) if samples is None else samples
    return make_trace({'head.fc': student}, {'head.fc': teacher}, samples=samples)


# ------------------------------------------------------------------------------------ functions


def test_two_softmaxes_of_the_discriminator():
    labels = torch.tensor([0])
    assert ANSWER[:, -2:].softmax(1)[0].tolist() == near([0.71095, 0.28905])
    assert float(origin(ANSWER, TEACHER)) == near(0.341154)
    assert float(origin(ANSWER, STUDENT)) == near(1.241154)
    assert (-condition(ANSWER, labels)).exp().tolist() == near([0.461488])
    assert float(condition(ANSWER, labels)) == near(0.7733)
    others = [float((-condition(ANSWER, torch.tensor([i]))).exp()) for i in (1, 2)]
    assert others == near([0.229168, 0.309344])
    one_softmax = -ANSWER.log_softmax(1)[0, 3]
    assert float(one_softmax) == near(0.909316) != near(float(origin(ANSWER, TEACHER)))


def test_without_labels_there_is_no_condition():
    assert condition(ANSWER.expand(2, -1), None).tolist() == [0, 0]


# ------------------------------------------------------------------------------------ objective


def test_the_direct_term_is_a_mean_over_classes():
    one, other = torch.tensor([[2.0, 0, 0]]), torch.tensor([[1.0, 1, 0]])
    found = prepared()(step(one, other, class_labels(torch.tensor([0]))))
    assert float(found['loss_l1']) == near(2 / 3)


def test_a_discriminator_that_knows_nothing():
    objective = prepared(factors=dict(l1=0, fool=1, label=1))
    nn.init.zeros_(objective.critic.layers[-1].weight)
    nn.init.zeros_(objective.critic.layers[-1].bias)
    found = {k: float(v.detach()) for k, v in objective(step()).items()}
    assert found['loss_fool'] == near(math.log(2)) and found['loss_label'] == near(math.log(3))
    assert found['loss_critic'] == near(2 * math.log(2) + 2 * math.log(3))
    assert found['loss_l1'] == found['accuracy'] == 0


def test_equal_logits_leave_the_discriminator_at_chance():
    objective = prepared()
    found = objective(step(ZT, ZT))
    assert float(found['accuracy']) == 0.5 and float(found['loss_l1']) == 0
    best = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(best, 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = objective(step(ZT, ZT))['loss_critic']
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) >= 2 * math.log(2) - 1e-5  # of the labels it may know all


def test_terms_are_those_of_the_equation():
    objective = prepared(factors=dict(fool=0.3, label=0.2)).eval()
    found = {k: float(v.detach()) for k, v in objective(step()).items()}
    own, wanted = (objective.critic(x.float()).double().detach() for x in (ZS, ZT))
    p_own, p_wanted = own[:, -2:].softmax(1), wanted[:, -2:].softmax(1)
    rows = range(3)
    fool = -sum(math.log(p_own[i, 0]) for i in rows) / 3
    label = -sum(math.log(own[i, :3].softmax(0)[Y[i]]) for i in rows) / 3
    critic = -sum(math.log(p_wanted[i, 0]) + math.log(p_own[i, 1]) for i in rows) / 3
    critic += label - sum(math.log(wanted[i, :3].softmax(0)[Y[i]]) for i in rows) / 3
    right = sum(float(p_wanted[i, 0] > 0.5) + float(p_own[i, 1] > 0.5) for i in rows) / 6
    wanted = dict(loss_l1=float((ZS - ZT).abs().mean()), loss_fool=0.3 * fool)
    wanted |= dict(loss_label=0.2 * label, loss_critic=critic, accuracy=right)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_each_side_learns_from_its_own_terms():
    objective, student = prepared(), ZS.float().requires_grad_()
    losses = objective(step(student))
    learnt = list(objective.parameters())
    for key in ('loss_fool', 'loss_label'):
        found = torch.autograd.grad(
            losses[key], [student, *learnt], allow_unused=True, retain_graph=True
        )
        assert found[0].abs().sum() > 0 and found[1:] == (None,) * len(learnt)
    found = torch.autograd.grad(losses['loss_critic'], [student, *learnt], allow_unused=True)
    assert found[0] is None and all(g.abs().sum() > 0 for g in found[1:])


def test_a_constant_discriminator_teaches_nothing():
    objective, student = prepared(), ZS.float().requires_grad_()
    nn.init.zeros_(objective.critic.layers[-1].weight)
    losses = objective(step(student))
    (gradient,) = torch.autograd.grad(losses['loss_fool'] + losses['loss_label'], student)
    assert not gradient.any()


def test_images_without_labels(log):
    objective = prepared()
    assert objective.label_free
    samples = class_labels(Y)
    for sample in samples:
        sample.set_metainfo({LABELLED: False})
        del sample.gt_label
    for _ in range(2):
        found = objective(step(samples=samples))
    assert float(found['loss_label']) == 0 < float(found['loss_fool'])
    assert log.text.count('images without labels teach all of its terms but the class') == 1


def test_accuracy_of_a_discriminator_that_is_always_right():
    objective = prepared(critic=[1])
    first, last = (objective.critic.layers[i] for i in (0, -1))
    first.weight = torch.ones(1, 3)
    nn.init.zeros_(last.bias)
    last.weight.data[-2:] = torch.tensor([[1.0], [-1.0]])  # the sum says whose logits they are
    found = objective(step(-torch.ones(3, 3), torch.ones(3, 3)))
    assert float(found['accuracy']) == 1 and int(objective.certainty.steps) == 1
    found = objective(step(torch.ones(3, 3), -torch.ones(3, 3)))
    assert float(found['accuracy']) == int(objective.certainty.steps) == 0


def test_foreground_rois_and_their_class():
    student, teacher = (build_model(tiny_faster_rcnn(width=w)) for w in (4, 8))
    objective = AdversarialLogits()
    objective.bind(student, teacher)
    assert objective.kind == 'rois' and not objective.label_free
    assert objective.critic.layers[0].in_features == 4  # three classes and the background
    assert objective.describe() == ['discriminator with layers of 128, 256, 128, 6']


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: AdversarialLogits(factors=dict(fool=-1)), 'factor fool must be a finite number'),
        (lambda: AdversarialLogits(factors=dict(gan=1)), 'a key of factors must be one of'),
        (lambda: AdversarialLogits(critic=8), 'critic must be a list'),
        (lambda: AdversarialLogits(critic=[8, 0]), 'a width of critic must be a whole number'),
        (lambda: AdversarialLogits().bind(*(ToySegmentor(), ToySegmentor())), 'SKDHolistic'),
        (lambda: AdversarialLogits().bind(ToyClassifier(1), ToyClassifier(1)), 'over one class'),
        (lambda: AdversarialLogits().bind(ToyClassifier(3), ToyClassifier(4)), 'class counts'),
        (
            lambda: AdversarialLogits().bind(
                *(build_model(tiny_faster_rcnn(width=w, num_classes=1)) for w in (4, 8))
            ),
            'there is one class alone',
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ----------------------------------------------------------------------------------- joint step


def distiller(weight):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width=w)) for w in (4, 8))
    objectives = dict(it=AdversarialLogits(weight=weight))
    return Distiller(student, objectives, Teacher(teacher, checkpoint='random')).train()


def trained(model, steps=3):
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    optimizers = build_optimizers(model, lambda: build_optim_wrapper(model, config))
    for seed in range(steps):
        losses = model.loss(*classification_batch(4, (32, 32), seed=seed))
        optimizers.update_params(model.parse_losses(losses)[0])
    return {k: v.clone() for k, v in model.student.state_dict().items()}


def test_weight_0_is_plain_training():
    torch.manual_seed(0)
    plain = build_model(tiny_classifier(width=4))
    model = distiller(0.0)
    plain.load_state_dict(copy.deepcopy(model.student.state_dict()))
    found = trained(model)
    optimizer = torch.optim.SGD(plain.train().parameters(), 0.1, 0.9)
    for seed in range(3):
        inputs, samples = classification_batch(4, (32, 32), seed=seed)
        optimizer.zero_grad()
        plain(inputs, samples, mode='loss')['loss_cls'].backward()
        optimizer.step()
    assert all(torch.equal(v, found[k]) for k, v in plain.state_dict().items())


def test_one_step_moves_both():
    model = distiller(1.0)
    before = copy.deepcopy(model.state_dict())
    trained(model, 1)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith('objectives.it.critic') for k in moved) and 'head.fc.weight' in moved
