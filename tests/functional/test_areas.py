"""Where classes are, and what features are like there."""

import pytest
import torch

from mmkd.functional.areas import areas_of_interest, classes_in, presence, region_means


def test_areas():
    one = torch.zeros(1, 8, 8).long()
    one[0, 3, 3] = 1
    one[0, 0, 0] = 255
    sharp = areas_of_interest(one, 2, (8, 8), kernel=1)
    assert sharp[0, 1].sum() == 1 and sharp[0, :, 0, 0].sum() == 0
    blurred = areas_of_interest(one, 2, (8, 8), kernel=3)
    assert blurred[0, 1].sum() == 9 and blurred.unique().tolist() == [0, 1]
    weighted = areas_of_interest(one, 2, (8, 8), kernel=3, binary=False)
    assert float(weighted[0, 1].max()) == pytest.approx(1 / 9)
    assert areas_of_interest(one, 2, (2, 2), kernel=1)[0, 1].sum() == 1, 'thin markings survive'


def test_labels_outside_of_the_classes_belong_to_none():
    labels = torch.tensor([[[0, 255], [-1, 1]]])
    found = areas_of_interest(labels, 2, (2, 2), kernel=1)
    assert found[0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]


@pytest.mark.parametrize('options', [dict(kernel=5), dict(), dict(kernel=1)])
def test_a_pixel_becomes_a_square_around_it(options):
    one = torch.zeros(1, 33, 33).long()
    one[0, 16, 16] = 1
    area = areas_of_interest(one, 2, (33, 33), **options)[0, 1]
    reach = options.get('kernel', 11) // 2
    wanted = torch.zeros(33, 33)
    wanted[16 - reach : 17 + reach, 16 - reach : 17 + reach] = 1
    assert torch.equal(area, wanted)


def test_means_of_regions():
    features = torch.arange(16.0).view(1, 2, 2, 4)
    areas = torch.zeros(1, 3, 2, 4)
    areas[0, 0, 0, :2], areas[0, 1, 1, 3], areas[0, 1, 0, 3] = 1, 3, 1
    found = region_means(features, areas)
    assert found.shape == (1, 3, 2)
    assert found[0, 0].tolist() == [0.5, 8.5]
    assert found[0, 1].tolist() == [(3 * 7 + 3) / 4, (3 * 15 + 11) / 4], 'a weighted mean'
    assert found[0, 2].tolist() == [0, 0], 'a class that is nowhere'
    features.requires_grad_()
    region_means(features, areas).sum().backward()
    assert features.grad.isfinite().all() and not features.grad[0, :, 1, 0].any()


def test_which_classes_occur():
    labels = torch.tensor([[[0, 255], [0, 0]], [[2, -1], [3, 2]]])
    assert presence(labels, 3).tolist() == [[True, False, False], [False, False, True]]
    assert classes_in(labels, 3) == [0, 2] and classes_in(labels, 4) == [0, 2, 3]
    assert classes_in(labels[:0], 3) == []
    areas = areas_of_interest(labels, 3, (2, 2), kernel=1, present=[2])
    assert not areas[0].any() and areas[1, 2].tolist() == [[1, 0], [0, 1]]
