"""DarkRank: embeddings as they are, and gradients in float32."""

import pytest
import torch

from mmkd.functional.relations import distances
from mmkd.methods.darkrank import DarkRank, log_likelihood, ranking_error
from mmkd.testing import make_trace, ready


def test_embeddings_as_they_are():
    torch.manual_seed(0)
    student, teacher = torch.rand(5, 3), torch.rand(5, 4)
    trace = make_trace({'x': student}, {'x': teacher})
    found = ready(DarkRank('x', normalize=False), trace)(trace)['loss']
    wanted = ranking_error(distances(student), distances(teacher))
    assert float(found) == pytest.approx(float(wanted))
    assert float(ready(DarkRank('x'), trace)(trace)['loss']) != pytest.approx(float(wanted))


@pytest.mark.parametrize('scale', [1.0, 30.0, 200.0])
def test_gradient_in_float32(scale):
    """That of the slow formula in float64, as far as the scores themselves are exact."""
    torch.manual_seed(0)
    scores = -scale * torch.rand(8, 60)
    given = scores.clone().requires_grad_()
    log_likelihood(given).sum().backward()
    exact = scores.double().requires_grad_()
    rest = [exact[:, i:].logsumexp(1) for i in range(60)]
    (exact - torch.stack(rest, 1)).sum().backward()
    assert given.grad.dtype is torch.float32
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=1e-6, atol=1e-6)
