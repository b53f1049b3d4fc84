"""IntRAKD against worked numbers and its invariances."""

import pytest
import torch
from segmentation_toys import (
    ToySegmentor,
    check_memory,
    crop_labels,
    make_step,
    prepare,
    probe_tensors,
)

from mmkd.functional.areas import areas_of_interest
from mmkd.methods.intrakd import (
    IntRAKD,
    affinity_distance,
    region_affinity,
    region_moments,
)

S, T, Y = probe_tensors()


def regions(classes=3, kernel=1):
    return areas_of_interest(Y, classes, (4, 4), kernel).double()


def distance(student, teacher, classes=3, **options):
    areas = regions(classes)
    pair = (region_moments(x, areas) for x in (student, teacher))
    return float(affinity_distance(*pair, **options))


def test_moments_of_one_region():
    mean, variance, skewness = region_moments(S, regions())[0, 0]
    assert mean.tolist() == pytest.approx([0.16, 0.12, 0.08], abs=1e-6)
    assert variance.tolist() == pytest.approx([0.2944, 0.3296, 0.5056], abs=1e-6)
    assert skewness.tolist() == pytest.approx([0.151448, -0.407891, -0.249939], abs=1e-5)


def test_probe():
    assert distance(S, T) == pytest.approx(0.3468060, abs=1e-5)
    absent = distance(S, T, classes=4)
    assert absent == pytest.approx(0.1950783, abs=1e-5)
    assert absent / distance(S, T) == pytest.approx(0.5625, abs=1e-9)
    assert distance(S, T, classes=4, present=True) == pytest.approx(0.3468060, abs=1e-5)
    assert distance(S, S) == 0


def test_two_classes_by_their_means():
    orthogonal = torch.eye(2).view(1, 2, 1, 2).expand(1, 2, 3, 2)
    equal = torch.tensor([1.0, 0.0]).expand(1, 2, 3, 2)
    found = affinity_distance(orthogonal, equal, moments=(1,))
    assert float(found) == pytest.approx(2 / 4)
    one_of_three = torch.stack((orthogonal[:, :, 0], equal[:, :, 0], equal[:, :, 0]), 2)
    assert float(affinity_distance(one_of_three, equal)) == pytest.approx(1 / 6)


def test_rotation_leaves_means_only_and_shifts_change_means_only():
    rotation = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )[0]
    turned = torch.einsum('dc,nchw->ndhw', rotation, S)
    same, other = (region_affinity(region_moments(x, regions())) for x in (S, turned))
    torch.testing.assert_close(same[:, 0], other[:, 0])
    assert not torch.allclose(same[:, 1:], other[:, 1:], atol=1e-3)
    shifted = region_affinity(region_moments(S + 0.7, regions()))
    torch.testing.assert_close(same[:, 1:], shifted[:, 1:])
    assert not torch.allclose(same[:, 0], shifted[:, 0], atol=1e-3)
    torch.testing.assert_close(
        same, region_affinity(region_moments(5 * S, regions())), atol=1e-4, rtol=0
    )
    assert same.diagonal(dim1=2, dim2=3).allclose(torch.ones(()).double())


def test_regions_of_few_cells_are_absent_and_hw_divides_by_the_map():
    areas = torch.zeros(1, 2, 4, 4)
    areas[0, 0, 0, :3], areas[0, 1, 1] = 1, 1
    moments = region_moments(S[:1].float(), areas)
    assert not moments[0, 0].any() and moments[0, 1].any()
    scaled = region_moments(S[:1].float(), areas, norm='hw')
    torch.testing.assert_close(scaled[0, 1, 0], moments[0, 1, 0] * 4 / 16)


@pytest.mark.parametrize('value', [0.0, 3.0])
def test_constant_maps_are_finite(value):
    x = torch.full((1, 3, 4, 4), value, requires_grad=True)
    loss = affinity_distance(
        *(region_moments(y, regions()[:1].float()) for y in (x, T[:1].float()))
    )
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


def test_excluded_classes_are_as_if_unlabelled():
    models = ToySegmentor(4), ToySegmentor(6)
    labels = torch.zeros(2, 32, 48).long()
    labels[:, :16], labels[:, 16:, 24:] = 1, 2
    found = []
    for options, changed in (
        (dict(exclude=(0,)), labels),
        ({}, labels.masked_fill(labels == 0, 255)),
    ):
        objective = prepare(IntRAKD(kernel=1, **options), *models)
        found.append(objective(make_step(objective, *models, labels=changed))['loss'])
    everything = prepare(IntRAKD(kernel=1), *models)
    everything = everything(make_step(everything, *models, labels=labels))['loss']
    torch.testing.assert_close(*found)
    assert float(found[0].detach()) != pytest.approx(float(everything.detach()))
    with pytest.raises(ValueError, match=r'exclude=\(3,\) .* 0 to 2'):
        IntRAKD(exclude=(3,)).bind(*models)


def test_a_step_and_a_kernel_that_is_too_large():
    models = ToySegmentor(4), ToySegmentor(6)
    labels = torch.zeros(2, 32, 48).long()
    labels[:, :16], labels[:, 16:, 24:] = 1, 2
    objective = prepare(IntRAKD(kernel=1), *models)
    assert float(objective(make_step(objective, *models, labels=labels))['loss'].detach()) > 0
    wide = prepare(IntRAKD(kernel=101), *models)
    with pytest.warns(UserWarning, match='kernel=101 spreads every region'):
        wide(make_step(wide, *models, labels=labels))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kernel=4), 'odd'),
        (dict(moments=(4,)), 'among 1, 2 and 3'),
        (dict(norm='cells'), 'norm must be one of'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        IntRAKD(**options)


def intra_region(student, teacher):
    areas = areas_of_interest(crop_labels(len(student)) % 9, 150, student.shape[2:])
    return affinity_distance(*(region_moments(x, areas) for x in (student, teacher)))


def test_peak_memory_at_crops_of_512_x_1024():
    check_memory(intra_region, 2, 8)
