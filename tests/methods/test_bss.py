"""BSS: worked attacks on linear teachers, which images are attacked, and what the student hears."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from pixel_toys import LABELS, linear_step
from segmentation_toys import ToyClassifier, ToySegmentor
from torch import nn
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.engine.optimizers import build_optimizers
from mmkd.functional.gumbel import gumbel_noise
from mmkd.functional.logit_distances import weighted_cross_entropy
from mmkd.generators import step_generator
from mmkd.methods.bss import BSS, attack, base_scores, draw_targets
from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, tiny_classifier

WIDE = torch.tensor(-99.0), torch.tensor(99.0)
ZERO, ONE = torch.tensor([0]), torch.tensor([1])
YES = torch.tensor([True])


def moved(steps, eta=0.3, x=(3.0, 1.0), bounds=WIDE, chosen=YES):
    """Where the linear teacher z = x sends an image of class 0, towards class 1."""
    image = torch.tensor([x], dtype=torch.float64)
    found, z = attack(lambda v: v, image, (ZERO, ONE), chosen, eta, steps, bounds)
    assert torch.equal(found, z) and not found.requires_grad
    return found[0].tolist()


def near(value):
    return pytest.approx(value, abs=1e-6)


# ------------------------------------------------------------------------------------ functions


def test_worked_steps_of_a_linear_teacher():
    assert moved(1) == near([2.575715, 1.424285])
    assert moved(2) == near([2.331438, 1.668562])
    assert moved(3) == near([2.1908, 1.8092])
    gaps = [(lambda v: v[0] - v[1])(moved(k)) for k in (1, 2, 3)]
    assert gaps == near([1.151429, 0.662877, 0.3816])


def test_the_step_is_not_divided_by_the_squared_length():
    """As DeepFool would: with ||g||^2 = 2 that takes 28 steps, and ends on the boundary."""
    crossed = [k for k in range(1, 30) if moved(k)[0] < moved(k)[1]]
    assert crossed[0] == 18
    assert moved(1, eta=1.0) == pytest.approx([1.586, 2.414], abs=1e-3)
    x = torch.tensor([3.0, 1.0], dtype=torch.float64)
    steps = 0
    while x[0] >= x[1]:
        gap, g = x[0] - x[1], torch.tensor([-1.0, 1.0], dtype=torch.float64)
        x, steps = x + 0.3 * (gap + 1e-4) * g / 2, steps + 1
    assert steps == 28


def test_who_has_crossed_stays():
    behind = moved(18)
    assert moved(19) == moved(40) == behind and behind[0] < behind[1]
    one_step = moved(1, eta=1.0)
    assert moved(5, eta=1.0) == one_step


def test_others_and_bounds_are_kept():
    assert moved(5, chosen=~YES) == [3.0, 1.0]
    assert moved(1, bounds=(torch.tensor(0.0), torch.tensor(1.2))) == near([1.2, 1.2])
    outside = torch.tensor(0.0), torch.tensor(2.0)
    assert moved(3, bounds=outside, chosen=~YES) == [3.0, 1.0]


def test_a_teacher_without_slope_moves_nothing():
    flat = nn.Parameter(torch.zeros(2, 3))
    image = torch.ones(1, 2)
    found, _ = attack(lambda v: v @ flat, image, (ZERO, ONE), YES, 0.3, 3, WIDE)
    assert torch.equal(found, image) and flat.grad is None


def test_score_and_odds_of_the_sheet():
    student = torch.tensor([[0.8, 0.15, 0.05]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    assert float(base_scores(student, teacher, ZERO)) == near(0.025)
    assert float(base_scores(student, teacher, ONE)) == -1
    assert float(base_scores(student.flip(1), teacher, ZERO)) == -1
    many = teacher.expand(100_000, 3)
    uniform = torch.rand(many.shape, generator=torch.Generator().manual_seed(0)).double()
    drawn = draw_targets(many, ZERO.expand(100_000), -(-uniform.log()).log())
    odds = drawn.bincount(minlength=3) / len(many)
    assert float(odds[0]) == 0 and odds[1:].tolist() == pytest.approx([0.75, 0.25], abs=5e-3)


# ------------------------------------------------------------------------------------ objective


def sure_step(agrees=True):
    """Two linear networks that classify both images correctly, or of which the student does not."""
    step = linear_step()
    with torch.no_grad():
        for model in (step.student.model, step.teacher.model):
            fc = model.head.fc
            fc.bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
            fc.weight.mul_(0.2)
            x = step.inputs.detach().flatten(1)
            for i, label in enumerate(LABELS):
                fc.weight[label] += (0.4 if model is step.teacher.model else 0.1) * F.normalize(
                    x[i], dim=0
                )
        if not agrees:
            step.student.model.head.fc.bias[1] = 9.0
        for side in (step.student, step.teacher):
            side.calls = {'head.fc': [side.model(step.inputs)]}
    step.student.calls['head.fc'][0].requires_grad_()
    step.teacher.inputs = step.inputs.detach()
    return step


def bound(step, **options):
    objective = BSS(**options)
    objective.bind(step.student.model, step.teacher.model)
    objective.low.fill_(-50)
    objective.high.fill_(50)
    return objective


def test_the_whole_loss_is_that_of_the_equation():
    step = sure_step()
    found = bound(step, alpha=3.0, beta=0.5, eta=1.5, steps=30)(step)
    own, wanted = (side['head.fc'][0].detach() for side in (step.student, step.teacher))
    assert found['base'] == 2 and found['crossed'] == 1
    assert float(found['loss_kd'].detach()) == near(
        3 * float(weighted_cross_entropy(own, wanted, tau=3).mean())
    )
    score, index = base_scores(own, wanted, LABELS).topk(2)
    assert (score > 0).all()
    noise = gumbel_noise(wanted[index], step_generator(0, step.progress.iteration))
    targets = draw_targets(wanted[index], LABELS[index], noise)
    total = 0.0
    for place, row in enumerate(index):
        x, base, target = step.inputs[row].detach().clone(), LABELS[row], targets[place]
        weight, bias = step.teacher.model.head.fc.weight, step.teacher.model.head.fc.bias
        for _ in range(30):
            z = weight @ x.flatten() + bias
            if z.argmax() != base:
                break
            g = (weight[target] - weight[base]).view_as(x)
            x = x + 1.5 * (z[base] - z[target] + 1e-4) * g / g.norm()
        z = weight @ x.flatten() + bias
        own_fc = step.student.model.head.fc
        s = own_fc.weight @ x.flatten() + own_fc.bias
        total += float(-((z / 3).softmax(0) * (s / 3).log_softmax(0)).sum()) / 2
    assert float(found['loss_bss']) == pytest.approx(0.5 * total, rel=1e-4)


def test_without_base_samples_it_is_kd():
    step = sure_step(agrees=False)
    found = bound(step)(step)
    assert found['base'] == found['crossed'] == found['loss_bss'] == 0
    found['loss_bss'].backward()
    assert not step.student.model.head.fc.weight.grad.any()


def test_who_did_not_cross_is_dropped_or_kept():
    step = sure_step()
    options = dict(steps=1, eta=1e-3)
    dropped, kept = (bound(step, drop_uncrossed=drop, **options)(step) for drop in (True, False))
    assert dropped['crossed'] == kept['crossed'] == 0 and dropped['base'] == 2
    assert float(dropped['loss_bss'].detach()) == 0 < float(kept['loss_bss'].detach())


def test_those_that_differ_most_are_taken():
    step = sure_step()
    assert bound(step, samples=1)(step)['base'] == 1
    assert bound(step, samples=99)(step)['base'] == 2


def test_nothing_is_attacked_for_a_factor_of_0():
    step = sure_step()
    objective = bound(step, beta=0.0)
    step.teacher.model.forward = None  # would fail
    assert float(objective(step)['loss_bss']) == 0


def test_draws_depend_on_the_iteration_alone():
    step = sure_step()
    objective = bound(step, steps=30)
    first = objective(step)['loss_bss']
    torch.rand(3)
    assert torch.equal(objective(step)['loss_bss'], first)
    others = []
    for i in range(1, 9):
        step.progress = Progress(i, 10)
        others.append(float(objective(step)['loss_bss'].detach()))
    assert len({round(x, 5) for x in [float(first.detach()), *others]}) > 1


def test_bounds_are_those_of_the_pixels():
    student, teacher = (build_model(tiny_classifier(w)) for w in (4, 8))
    objective = BSS()
    objective.bind(student, teacher)
    mean, std = teacher.data_preprocessor.mean, teacher.data_preprocessor.std
    pixels = torch.tensor([0.0, 255.0])[:, None] * torch.ones(3)
    wanted = (pixels - mean.flatten()) / std.flatten()
    torch.testing.assert_close(objective.low.flatten(), wanted[0])
    torch.testing.assert_close(objective.high.flatten(), wanted[1])
    assert not [k for k in objective.state_dict() if 'low' in k or 'high' in k]


def test_the_student_sees_its_own_normalisation():
    teacher = build_model(tiny_classifier(8))
    half = dict(data_preprocessor=dict(mean=[0.0] * 3, std=[2 * 255.0] * 3))
    student = build_model(tiny_classifier(4, **half)).eval()
    objective = BSS()
    objective.bind(student, teacher)
    seen = []
    student.forward = lambda x, mode: seen.append(x) or torch.zeros(len(x), 3)
    step = linear_step()
    step.student.model, step.inputs = student, torch.zeros(2, 3, 8, 8)
    objective._ask(step, objective.high.expand(2, 3, 8, 8).clone())
    torch.testing.assert_close(seen[0], torch.full((2, 3, 8, 8), 0.5))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: BSS(eta=0.0), 'eta must be a finite number above 0'),
        (lambda: BSS(steps=0), 'steps must be a whole number of at least 1'),
        (lambda: BSS(samples=0), 'samples must be a whole number of at least 1'),
        (lambda: BSS(tau=0), 'temperature tau must be a finite number above 0'),
        (lambda: BSS(beta=-1), 'beta must be a finite number'),
        (lambda: BSS().bind(ToySegmentor(), ToySegmentor()), 'for classifiers of images'),
        (lambda: BSS().bind(ToyClassifier(3), ToyClassifier(4)), 'class counts'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_unequal_channels():
    grey = ToyClassifier()
    grey.backbone.conv = nn.Conv2d(1, 4, 3, stride=8, padding=1)
    with pytest.raises(ValueError, match="teacher's have 3 channels and the student takes 1"):
        BSS().bind(grey, ToyClassifier())


def test_an_ensemble_has_no_gradient_to_follow():
    member = dict(config=tiny_classifier(8), checkpoint='random')
    teacher = dict(type='mmkd.Ensemble', members=dict(a=member, b=member))
    with pytest.raises(ValueError, match='BSS'):
        Distiller(build_model(tiny_classifier(4)), dict(it=BSS()), teacher)


# --------------------------------------------------------------------------------- a real step


def distiller(**options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_classifier(width=w)) for w in (4, 8))
    objectives = dict(it=BSS(**options))
    return Distiller(student, objectives, Teacher(teacher, 'random'), preflight=False).train()


def trained(model):
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    optimizers = build_optimizers(model, lambda: build_optim_wrapper(model, config))
    for seed in range(2):
        losses = model.loss(*classification_batch(8, (16, 16), seed=seed))
        optimizers.update_params(model.parse_losses(losses)[0])
    return {k: v.clone() for k, v in model.student.state_dict().items()}


def test_frozen_is_frozen_and_attacks_move_no_statistics():
    model = distiller()
    teacher = model.teachers['teacher'].model
    before = copy.deepcopy(teacher.state_dict())
    found, calm = trained(model), trained(distiller(beta=0.0))
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not any(p.grad is not None for p in teacher.parameters())
    counters = [k for k in found if k.endswith('num_batches_tracked')]
    assert counters and all(torch.equal(found[k], calm[k]) for k in counters)


def test_without_base_samples_a_run_is_that_of_kd_bit_for_bit():
    runs = []
    for beta in (2.0, 0.0):
        model = distiller(beta=beta)  # which never agree
        model.teachers['teacher'].model.head.fc.bias.data[0] = 50.0
        model.student.head.fc.bias.data[1] = 50.0
        runs.append(trained(model))
    assert all(torch.equal(v, runs[1][k]) for k, v in runs[0].items())
