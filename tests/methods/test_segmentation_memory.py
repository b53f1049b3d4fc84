"""At crops of 512 x 1024, stride 8, no method that compares all places with all needs 1 GB."""

import pytest
import torch

from mmkd.engine.benchmark import peak_bytes
from mmkd.functional.areas import areas_of_interest
from mmkd.functional.pooling import pool_nodes
from mmkd.functional.relations import smooth_unit
from mmkd.methods.cirkd import cross_image_relations
from mmkd.methods.cirkd_memory import memory_kl
from mmkd.methods.cscace import MOST_SIMILARITIES, correlation_distance
from mmkd.methods.ifvd import intra_class_variation
from mmkd.methods.intrakd import affinity_distance, region_moments
from mmkd.methods.ka import affinity_error
from mmkd.methods.skd_pair import pair_wise

LIMIT = 1e9
H, W = 64, 128  # 8,192 places: one matrix of all pairs takes 268 MB an image
LABELS = torch.arange(2 * 512 * 1024).view(2, 512, 1024) % 150


def maps(n, channels):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, H, W, generator=generator) for _ in range(2)]


def intra_region(student, teacher):
    areas = areas_of_interest(LABELS[: len(student)] % 9, 150, (H, W))
    pair = [region_moments(x, areas) for x in (student, teacher)]
    return affinity_distance(*pair)


def memory(student, teacher):
    bank = smooth_unit(torch.randn(4096, student.shape[1]))
    return memory_kl(
        *(smooth_unit(x.flatten(2).mT.flatten(0, 1)) for x in (student, teacher)), bank
    )


def pooled_correlation(student, teacher):
    pair = [pool_nodes(x, 'avg', 2) for x in (student, teacher)]
    assert len(student) * pair[0][0, 0].numel() ** 2 <= MOST_SIMILARITIES
    return correlation_distance(*pair)


@pytest.mark.parametrize(
    ('loss', 'n', 'channels'),
    [
        pytest.param(pair_wise, 2, 32, id='SKDPair'),
        pytest.param(lambda s, t: affinity_error(s, t, 'row_l2'), 2, 32, id='KA-row_l2'),
        pytest.param(lambda s, t: affinity_error(s, t, 'mse'), 2, 32, id='KA-mse'),
        pytest.param(pooled_correlation, 2, 32, id='CSCACE'),
        # These two work in parts of one size, however many there are.
        pytest.param(
            lambda s, t: cross_image_relations(s[..., :36], t[..., :36]), 2, 8, id='CIRKD'
        ),
        pytest.param(lambda s, t: memory(s[..., :36], t[..., :36]), 1, 8, id='CIRKDMemory'),
        pytest.param(intra_region, 2, 8, id='IntRAKD'),
        pytest.param(
            lambda s, t: intra_class_variation(s, t, LABELS[:, ::8, ::8], 150), 2, 32, id='IFVD'
        ),
    ],
)
def test_peak_with_backward(loss, n, channels):
    student, teacher = maps(n, channels)
    student.requires_grad_()
    peak = peak_bytes(lambda: loss(student, teacher).backward())
    assert student.grad.any()
    assert peak < LIMIT, f'{peak / 1e6:.0f} MB'


def test_what_correlation_refuses_to_hold():
    """The largest batch of places that CSCACE takes stays below the limit, too: measured at a 16th."""
    side = int((MOST_SIMILARITIES / 16 / 2) ** 0.25)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, side, side, generator=generator) for _ in range(2))
    student.requires_grad_()
    for normalize in ('frobenius', 'row', 'none'):
        step = lambda n=normalize: correlation_distance(student, teacher, n).backward()  # noqa: E731
        assert 16 * peak_bytes(step) < LIMIT
