"""Low precisions are computed in float32."""

import pytest
import torch

from mmkd.operators.precision import full, without_autocast


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precisions_become_float32(dtype):
    assert full(torch.ones(2, dtype=dtype)).dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.long])
def test_others_stay_what_they_are(dtype):
    x = torch.ones(2, dtype=dtype)
    assert full(x) is x


def test_products_keep_their_precision_under_autocast():
    def product(a, b, *, scale=1):
        """Words."""
        return scale * (a @ b)

    a, b = torch.randn(2, 3, 3)
    kept = without_autocast(product)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert product(a, b).dtype == torch.bfloat16
        found = kept(a, b, scale=2)
        assert torch.is_autocast_enabled('cpu'), 'it goes on behind'
    assert found.dtype == torch.float32 and torch.equal(found, 2 * (a @ b))
    assert kept.__doc__ == 'Words.'
