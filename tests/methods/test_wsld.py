"""WSLD: the weight of a sample, and the gradient of the divergence."""

import pytest
import torch
from logit_toys import CE, ZS, ZT, Y, images
from torch.nn import functional as F

from mmkd.functional.logit_distances import soft_kl
from mmkd.methods.wsld import WSLD, soft_cross_entropy, soft_label_weights


def test_worked_numbers():
    weight = soft_label_weights(ZS, ZT, Y)
    torch.testing.assert_close(
        weight, torch.tensor([0.909269, 0.811553, 0.997943]).double(), atol=1e-6, rtol=0
    )
    loss = images(WSLD())['loss']
    assert float(loss) == pytest.approx(3.5373551, abs=1e-6)
    assert float(CE + 2.5 * loss) == pytest.approx(9.341882, abs=1e-5)
    assert float(soft_label_weights(100 * F.one_hot(Y).double(), ZT, Y).max()) == pytest.approx(
        0, abs=1e-6
    )


def test_has_the_gradient_of_the_divergence():
    leaf = ZS.clone().requires_grad_()
    own = torch.autograd.grad(soft_cross_entropy(leaf, ZT, 2.0).sum(), leaf)[0]
    torch.testing.assert_close(own, torch.autograd.grad(soft_kl(leaf, ZT, 2.0).sum(), leaf)[0])


def test_options_out_of_range():
    with pytest.raises(ValueError, match='tau must be a finite number above 0'):
        WSLD(tau=0)
