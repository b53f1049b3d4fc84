"""One vector an image, and layers that are partners by position."""

import pytest
import torch

from mmkd.levels import Level
from mmkd.methods.cckd import CCKD
from mmkd.methods.rkd import RKD
from mmkd.rows.vectors import check_partners, linear_layers, row_pairs, vectors
from mmkd.testing import make_trace

LEVELS = [Level((4, 8, 8), 8, 'a'), Level((6,), None, 'b')]


def test_layers_are_partners_by_position():
    check_partners('RKD', LEVELS, LEVELS, 2)
    check_partners('RKD', None, LEVELS)  # what cannot be probed is seen in the first step
    for pair in ((LEVELS, LEVELS[:1]), (LEVELS[:1], LEVELS[:1])):
        with pytest.raises(
            ValueError, match='RKD pairs layers by position .* at least 2, .* shows'
        ):
            check_partners('RKD', *pair, 2)


def test_one_layer_of_each_side_is_embedded():
    first, second = linear_layers(CCKD('x'), LEVELS[:1], LEVELS[1:], 3)
    assert first.weight.shape == (3, 4) and second.weight.shape == (3, 6)
    for pair in ((LEVELS, LEVELS[:1]), (None, LEVELS[:1]), ([], LEVELS[:1])):
        with pytest.raises(ValueError, match='CCKD embeds one layer .* Name one tap of each'):
            linear_layers(CCKD('x'), *pair, 3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_maps_become_vectors(dtype):
    x = torch.rand(2, 3, 4, 5).to(dtype)
    wanted = x.float() if dtype is torch.float16 else x
    torch.testing.assert_close(vectors(x), wanted.mean((2, 3)))
    torch.testing.assert_close(vectors(x, pooled=False), wanted.flatten(1))
    tokens = x[:, :, 0]
    torch.testing.assert_close(vectors(tokens), wanted[:, :, 0].flatten(1))


def test_rows_of_every_tensor_at_the_taps():
    maps = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)]
    student = {'a': [x.requires_grad_() for x in maps], 'b': torch.rand(2, 6)}
    teacher = {'a': [torch.rand(2, 7, 4, 4)] * 2, 'b': torch.rand(2, 8, requires_grad=True)}
    objective = RKD(['a', 'b'])
    trace = make_trace(student, teacher)
    pairs = row_pairs(trace, objective)
    assert [(s.shape[1], t.shape[1]) for s, t in pairs] == [(3, 7), (5, 7), (6, 8)]
    assert pairs[0][0].requires_grad and not pairs[2][1].requires_grad
    flat = row_pairs(trace, objective, pooled=False)
    assert [s.shape[1] for s, _ in flat] == [48, 20, 6]
