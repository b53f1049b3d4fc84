"""CCKD: kernels, products of neighbours, and the two embeddings."""

import pytest
import torch
from row_toys import A, B, on_rows, random_rows

from mmkd.functional.relations import unit
from mmkd.methods.cckd import CCKD, correlations, neighbor_error


def congruence(s, t, kernel='taylor'):
    return (correlations(s, kernel) - correlations(t, kernel)).square().mean()


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        (congruence(A, B), 0.0472545),
        (congruence(A, B, 'rbf'), 0.0519183),
        (neighbor_error(A, B), 1.0),
    ],
)
def test_worked_numbers(found, wanted):
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_kernels():
    x = unit(A)
    torch.testing.assert_close(
        correlations(A, 'taylor').diagonal(), torch.full((3,), 0.952577).double(), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(correlations(A, 'rbf').diagonal(), torch.ones(3).double())
    torch.testing.assert_close(correlations(A, 'taylor', order=25), correlations(A, 'rbf'))
    torch.testing.assert_close(correlations(A, 'bilinear'), x @ x.T)
    wanted = (x.mean(1)[:, None] - x.mean(1)).abs()
    torch.testing.assert_close(correlations(A, 'mmd'), wanted)
    assert not torch.allclose(correlations(A, 'rbf', gamma=1.0), correlations(A, 'rbf'))


def test_the_order_of_the_batch_matters_to_products_of_neighbours():
    s, t = random_rows(widths=(3, 3))
    order = torch.tensor([3, 0, 4, 1, 2])
    assert float(neighbor_error(s[order], t[order])) != pytest.approx(float(neighbor_error(s, t)))


def test_embeds_both_sides():
    torch.manual_seed(0)
    objective = CCKD('x', dim=6)
    loss = on_rows(objective, *random_rows(dtype=torch.float32))
    own, wanted = (
        embed(x)
        for embed, x in zip(
            (objective.embed, objective.embed_target),
            random_rows(dtype=torch.float32),
            strict=True,
        )
    )
    torch.testing.assert_close(loss, congruence(own, wanted))
    loss.backward()
    assert objective.embed.weight.grad.any() and objective.embed_target.weight.grad.any()
    assert objective.embed.weight.shape == (6, 3)
    assert str(CCKD('x').weight) == '0.003' and str(CCKD(kernel='neighbors').weight) == '0.02'
    frozen = CCKD('x', train_both=False, kernel='neighbors')
    on_rows(frozen, *random_rows(dtype=torch.float32)).backward()
    assert frozen.embed.weight.grad.any() and frozen.embed_target.weight.grad is None
    for options in (dict(kernel='rbf', gamma=1.0), dict(order=4), dict(kernel='bilinear')):
        torch.manual_seed(0)
        other = CCKD('x', dim=6, **options)
        found = float(on_rows(other, *random_rows(dtype=torch.float32)).detach())
        assert found != pytest.approx(float(loss.detach()), rel=1e-6)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: CCKD(kernel='cubic'), 'kernel must be one of'),
        (lambda: CCKD(order=0), 'order must be'),
        (lambda: CCKD(dim=0), 'dim must be'),
        (lambda: CCKD(gamma=-1), 'gamma must be'),
        (lambda: CCKD('x').setup(None, None), 'Name one tap of each'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
