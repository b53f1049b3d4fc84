"""PRDKD: worked numbers, the scale of each class, and its statistics."""

import pytest
import torch
from logit_toys import ZS, ZT, Y, images

from mmkd.distiller import Distiller
from mmkd.functional.logit_distances import decoupled_kl, soft_kl
from mmkd.methods.prdkd import PRDKD, reconstruct
from mmkd.testing import tiny_classifier


@pytest.mark.parametrize(('unbiased', 'wanted'), [(False, 0.0563367), (True, 0.0376849)])
def test_worked_numbers(unbiased, wanted):
    student, teacher = (reconstruct(z, 0.0, unbiased) for z in (ZS, ZT))
    target, others = decoupled_kl(student, teacher, Y, 4.0)
    assert float((target + 8 * others).mean()) / 16 == pytest.approx(wanted, abs=1e-7)


def test_ignores_scale_and_offset_of_each_class():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, dtype=torch.float64)
    labels = torch.arange(6) % 3
    options = dict(eps=1e-12)
    first = images(PRDKD(**options), student, teacher, labels)
    scaled = student * torch.tensor([2.0, 0.5, 3.0]) + torch.tensor([1.0, -4.0, 0.0])
    second = images(PRDKD(**options), scaled, teacher, labels)
    for key in ('loss_target', 'loss_others'):
        assert float(first[key]) == pytest.approx(float(second[key]), rel=1e-6)
    plain = images(PRDKD(tau_square=False, **options), student, teacher, labels)
    assert float(first['loss_target']) == pytest.approx(16 * float(plain['loss_target']))
    columns = reconstruct(student)
    assert columns.mean(0).abs().max() < 1e-9
    torch.testing.assert_close(
        columns.var(0, correction=0), torch.ones(3).double(), atol=1e-4, rtol=0
    )


def test_without_gradient_through_the_statistics():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, dtype=torch.float64)
    grads = []
    for detach in (False, True):
        leaf = student.clone().requires_grad_()
        sum(
            images(PRDKD(detach_stats=detach), leaf, teacher, torch.arange(6) % 3).values()
        ).backward()
        grads.append(leaf.grad)
    assert grads[0].sum(0).abs().max() < 1e-5 < grads[1].sum(0).abs().max()


def test_has_nothing_to_say_about_three_rows():
    student = ZS.clone().requires_grad_()
    found = images(PRDKD(), student)
    assert all(float(v.detach()) == 0 and v.requires_grad for v in found.values())


def test_kd_of_the_standardised_logits():
    """KD + perception reconstruction: the sum that DKD decouples, with equal weights."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64)
    labels = torch.arange(8) % 5
    found = images(PRDKD(loss='kd'), student, teacher, labels)
    wanted = soft_kl(reconstruct(student), reconstruct(teacher), 4.0).mean()
    assert list(found) == ['loss_kd'] and float(found['loss_kd']) == pytest.approx(float(wanted))
    # KL = KL of the target + (1 - p_t) KL of the others, eq. 12
    s, t = reconstruct(student), reconstruct(teacher)
    target, others = decoupled_kl(s, t, labels, 4.0)
    p = (t / 4).softmax(1)[torch.arange(8), labels]
    assert float((target + (1 - p) * others).mean()) == pytest.approx(float(wanted))
    same = images(PRDKD(loss='kd'), student, student, labels)
    assert abs(float(same['loss_kd'])) < 1e-9
    three = images(PRDKD(loss='kd', alpha=3), student, teacher, labels)
    assert float(three['loss_kd']) == pytest.approx(3 * float(wanted))
    plain = images(PRDKD(loss='kd', tau_square=False), student, teacher, labels)
    assert float(plain['loss_kd']) == pytest.approx(float(wanted) / 16)
    few = images(PRDKD(loss='kd'), ZS.clone().requires_grad_())
    assert float(few['loss_kd'].detach()) == 0 and few['loss_kd'].requires_grad


def test_two_classes():
    """One class is left besides the target, which has nothing to say; plain KD has."""
    pair = dict(config=tiny_classifier(8, num_classes=2), checkpoint='random')
    student = tiny_classifier(4, num_classes=2)
    with pytest.raises(ValueError, match='set beta=0'):
        Distiller(student, dict(it=dict(type='mmkd.PRDKD')), pair)
    Distiller(student, dict(it=dict(type='mmkd.PRDKD', loss='kd')), pair)


def test_options_out_of_range():
    with pytest.raises(ValueError, match="loss must be one of 'dkd', 'kd'|loss"):
        PRDKD(loss='ls')
    with pytest.raises(ValueError, match='alpha must be a finite'):
        PRDKD(alpha=float('nan'))
