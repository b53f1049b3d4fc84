"""SKDPixel against worked numbers and a transcription of the equations."""

import copy
from math import log

import pytest
import torch
from segmentation_toys import ToySegmentor, make_step, prepare, probe_tensors

from mmkd.methods.kd import KD
from mmkd.methods.skd_pixel import SKDPixel, pixel_wise_kl

S, T, Y = probe_tensors()


def close(found, wanted, rel=1e-6):
    assert float(found) == pytest.approx(wanted, rel=rel, abs=1e-12)


def test_probe_tensors():
    close(S.sum(), 0.4)
    close((S * T).sum(), -0.8333333)
    close(T.sum(), -0.6666667)
    close(S.square().sum(), 38.56)
    assert T[0, :, 0, 0].tolist() == pytest.approx([-0.5, -0.1666667, 0.1666667], abs=1e-7)
    assert Y[0].tolist() == [[255, 2, 1, 0], [1, 0, 2, 1], [2, 1, 0, 2], [0, 2, 1, 0]]
    assert S[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, -0.2])


@pytest.mark.parametrize(
    ('options', 'wanted'),
    [
        (dict(), 0.2119143),
        (dict(reduction='skd_sum'), 0.4238286),
        (dict(reduction='element_mean'), 0.0706381),
        (dict(tau=2.0), 0.2274919),
        (dict(tau=4.0), 0.2307669),
        (dict(valid=Y != 255), 0.2259491),
    ],
)
def test_probe(options, wanted):
    assert float(pixel_wise_kl(S, T, **options)) == pytest.approx(wanted, abs=1e-6)
    found = pixel_wise_kl(S.float(), T.float(), **options)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_direction_and_the_entropy_that_the_code_drops():
    s = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    t = torch.tensor([0, log(3)], dtype=torch.float64).view(1, 2, 1, 1)
    close(pixel_wise_kl(s, t), 0.1308120, 1e-5)
    close(pixel_wise_kl(t, s), 0.1438410, 1e-5)
    close(-(t.softmax(1) * s.log_softmax(1)).sum(), 0.6931472)
    close(pixel_wise_kl(T, S), 0.2146134, 1e-5)
    p = T.softmax(1)
    cross_entropy = -(p * S.log_softmax(1)).sum() / 16
    close(cross_entropy, 2.4311028)
    entropy = -(p * p.log()).sum() / 16
    close(cross_entropy - entropy, float(pixel_wise_kl(S, T, reduction='skd_sum')))


def test_ignores_a_constant_added_to_all_classes_of_a_pixel():
    shift = torch.arange(32, dtype=torch.float64).view(2, 1, 4, 4)
    close(pixel_wise_kl(S + shift, T), float(pixel_wise_kl(S, T)))
    close(pixel_wise_kl(S, T - shift), float(pixel_wise_kl(S, T)))
    assert pixel_wise_kl(S + S.roll(1, 1), T) != pixel_wise_kl(S, T)


@pytest.mark.parametrize('options', [dict(), dict(reduction='skd_sum'), dict(mask_ignore=True)])
def test_objective_says_what_kd_says(options):
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective, kd = prepare(SKDPixel(**options), student, teacher), KD(**options)
    kd.bind(student, teacher)
    trace = make_step(objective, student, teacher, labels=torch.arange(2 * 32 * 48).view(2, 32, 48))
    close(objective(trace)['loss'].detach(), float(kd(trace)['loss'].detach()))


def test_gradient_numerically():
    logits = S[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pixel_wise_kl(x, T[:1]), logits)


def test_published_weight_of_each_reduction():
    weights = [SKDPixel(reduction=r).weight for r in ('per_pixel', 'skd_sum', 'element_mean')]
    assert [float(str(w)) for w in weights] == [1, 10, 10]


def test_objective_learns_and_is_zero_at_equality():
    student, teacher = ToySegmentor(4), ToySegmentor(4)
    objective = prepare(SKDPixel(), student, teacher)
    objective(make_step(objective, student, teacher))['loss'].backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    twin = copy.deepcopy(student)
    objective = prepare(SKDPixel(), student, twin)
    student.eval()
    loss = objective(make_step(objective, student, twin))['loss'].detach()
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_unequal_strides_need_a_resize():
    student, teacher = ToySegmentor(stride=16), ToySegmentor()
    with pytest.raises(ValueError, match='has stride 16 and the teacher.* 8; tap maps'):
        prepare(SKDPixel(), student, teacher)
    objective = prepare(SKDPixel(resize='teacher'), student, teacher)
    assert objective(make_step(objective, student, teacher))['loss'].isfinite()


def test_everything_ignored_is_zero_with_a_graph():
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = prepare(SKDPixel(mask_ignore=True), student, teacher)
    labels = torch.full((2, 32, 48), 255)
    loss = objective(make_step(objective, student, teacher, labels=labels))['loss']
    loss.backward()
    assert float(loss.detach()) == 0 and student.backbone.conv.weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: SKDPixel(tau=0), 'tau must be a finite number above 0'),
        (lambda: SKDPixel(reduction='mean'), 'reduction must be one of'),
        (lambda: SKDPixel().bind(ToySegmentor(), ToySegmentor(num_classes=4)), '3 .*teacher 4'),
        (
            lambda: SKDPixel().bind(*(ToySegmentor(num_classes=2, out_channels=1),) * 2),
            'softmax over one class',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_head_without_classifier_is_refused():
    student = ToySegmentor()
    del student.decode_head.conv_seg  # and its forward is not mmseg's
    with pytest.raises(
        ValueError, match='gives neither class logits of pixels nor classes and masks'
    ):
        SKDPixel().bind(student, ToySegmentor())


def test_predictions_and_where_they_differ():
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(SKDPixel(), *models)
    views = {(v.title, v.side): v for v in objective.views(make_step(objective, *models))}
    own, wanted = (views['predicted class', side].maps for side in ('student', 'teacher'))
    assert torch.equal(views['predictions differ', ''].maps, own != wanted)
