"""Mixtures: all pairs in order, the grid of shares, whole numbers, and the least certain of them."""

import pytest
import torch

from mmkd.makers.mixtures import SHARES, least_confident, lowest, mixed, pair_at, place_of


def test_values_of_the_sheet():
    assert SHARES == (0.3, 0.34, 0.38, 0.42, 0.46, 0.5, 0.54, 0.58, 0.62, 0.66, 0.7)
    pairs = pair_at(torch.arange(124_750), 500)
    wanted = torch.triu_indices(500, 500, 1)
    assert torch.equal(torch.stack(pairs), wanted)
    assert torch.equal(place_of(*wanted, 500), torch.arange(124_750))


@pytest.mark.parametrize('count', [2, 3, 40_000])
def test_first_and_last_pair(count):
    total = count * (count - 1) // 2
    first, second = pair_at(torch.tensor([0, total - 1]), count)
    assert first.tolist() == [0, count - 2] and second.tolist() == [1, count - 1]


def test_a_mixture_is_rounded():
    white, black = torch.full((1, 3, 1, 1), 255).byte(), torch.zeros(1, 3, 1, 1).byte()
    assert mixed(white, black, torch.tensor([0.3])).flatten().tolist() == [76, 76, 76]
    assert mixed(white, white, torch.tensor([0.34])).unique().tolist() == [255], 'no overflow to 0'
    half = torch.tensor([0.5])
    assert torch.equal(mixed(white, black, half), mixed(black, white, half))


def test_the_share_of_least_confidence():
    """Confidence is the distance of the brightness from 100, so of 0 and 200 it is least at .5."""
    images = torch.tensor([0, 200, 240, 150]).byte().view(4, 1, 1, 1).expand(4, 3, 2, 2)
    first, second = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 3])
    seen = []

    def confidence(batch):
        seen.append(len(batch))
        return (batch[:, 0, 0, 0].float() - 100).abs() / 100

    values, shares = least_confident(images, first, second, confidence)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.58, 0.3]))
    torch.testing.assert_close(values, torch.tensor([0.0, 0.01, 0.65]))
    assert seen == [33], '11 mixtures of each pair, together'


def test_the_lowest_in_their_order():
    assert lowest(torch.tensor([3.0, 1.0, 2.0, 1.0, 0.0]), 3).tolist() == [4, 1, 3]
