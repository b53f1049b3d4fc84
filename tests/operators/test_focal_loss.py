"""Focal losses against their equation, with gradients by autograd."""

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.usefixtures('own')  # mmcv has no compiled ones for a CPU

TARGET = torch.tensor([0, 2, 3, 1, 3, 0])  # 3 is background: there are three classes
WEIGHT = torch.tensor([0.5, 1.0, 2.0])


def logits(dtype=torch.float64):
    return (torch.randn(6, 3, dtype=dtype) * 3).requires_grad_()


def sigmoid_loss(x, gamma, alpha, weight=None):
    hit = F.one_hot(TARGET, 4)[:, :3].bool()
    p = torch.where(hit, x.sigmoid(), 1 - x.sigmoid())
    loss = -torch.where(hit, alpha, 1 - alpha) * (1 - p) ** gamma * p.log()
    return loss if weight is None else loss * F.pad(weight, (0, 1), value=1)[TARGET][:, None]


def softmax_loss(x, gamma, alpha, weight=None):
    p = x.softmax(1).gather(1, TARGET[TARGET < 3, None])[:, 0]
    loss = -alpha * (1 - p) ** gamma * p.log()
    return loss if weight is None else loss * weight[TARGET[TARGET < 3]]


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['even', 'weighted'])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (1.5, 0.6)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_values_and_gradients(kind, reduction, dtype, gamma, alpha, weight):
    weight = None if weight is None else weight.to(dtype)
    x = logits(dtype)
    if kind == 'sigmoid':
        found = mmcv.ops.sigmoid_focal_loss(x, TARGET, gamma, alpha, weight, reduction)
        wanted = sigmoid_loss(x, gamma, alpha, weight)
        rows = len(TARGET)
    else:
        inner = TARGET < 3
        found = mmcv.ops.softmax_focal_loss(
            x[inner], TARGET[inner], gamma, alpha, weight, reduction
        )
        wanted = softmax_loss(x[inner], gamma, alpha, weight)
        rows = int(inner.sum())
    wanted = {'none': wanted, 'sum': wanted.sum(), 'mean': wanted.sum() / rows}[reduction]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    if kind == 'softmax' and reduction == 'none':
        return  # mmcv's own backward fails there
    gradients = [torch.autograd.grad(loss.sum(), x)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_gradients_by_finite_differences():
    assert torch.autograd.gradcheck(
        lambda x: mmcv.ops.sigmoid_focal_loss(x, TARGET, 2.0, 0.25, None, 'sum'), logits()
    )


def test_logits_far_out_stay_finite():
    x = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(x, torch.tensor([1]), 2.0, 0.25, None, 'sum')
    assert loss.isfinite() and torch.autograd.grad(loss, x)[0].isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_rounded_once(dtype):
    x = logits(torch.float32).detach().to(dtype)
    found = mmcv.ops.sigmoid_focal_loss(x, TARGET, 2.0, 0.25, None, 'none')
    wanted = mmcv.ops.sigmoid_focal_loss(x.float(), TARGET, 2.0, 0.25, None, 'none')
    assert found.dtype == dtype and torch.equal(found, wanted.to(dtype))


def test_ignored_targets_of_the_softmax_loss_count_nothing():
    x = logits()
    loss = mmcv.ops.softmax_focal_loss(x, torch.full_like(TARGET, -1), 2.0, 0.25, None, 'sum')
    assert loss == 0 and not torch.autograd.grad(loss, x)[0].any()
