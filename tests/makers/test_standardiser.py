"""Standardiser: PHI-S of the sheet, rotations of all widths, and moments of a teacher's features."""

import pytest
import torch
from chain_toys import recipe

from mmkd.chain import build_maker
from mmkd.makers.standardiser import Moments, linear_map, rotation
from mmkd.testing import tiny_classifier

SHEET = torch.tensor([[5.0, 2], [2, 2]]).double()


def test_values_of_the_sheet():  # G7
    mean = torch.tensor([1.0, 0]).double()
    matrix = linear_map(mean, SHEET, 'phi_s')
    spread = matrix @ SHEET @ matrix.T
    torch.testing.assert_close(spread.diagonal(), torch.ones(2).double())
    assert abs(float(spread[0, 1])) == pytest.approx(0.714286, abs=1e-6)
    x = torch.tensor([3.0, 1]).double()
    phi = 1.870829
    assert phi**2 * float((matrix @ x).square().sum()) == pytest.approx(float(x @ x), abs=1e-5)
    scaled = linear_map(mean, SHEET, 'standardise') @ (x - mean)
    assert scaled.tolist() == pytest.approx([0.894427, 0.707107], abs=1e-6)


@pytest.mark.parametrize('size', [1, 2, 4, 12, 20, 24, 96, 384, 768])
def test_hadamard_rotations(size):
    matrix, exact = rotation(size)
    assert exact and float((matrix.abs() - size**-0.5).abs().max()) < 1e-12
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size).double())


@pytest.mark.parametrize('size', [3, 6, 52, 100])
def test_other_widths_are_rotated_by_a_fixed_random_matrix(size):
    matrix, exact = rotation(size)
    assert not exact and torch.equal(matrix, rotation(size)[0])
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size).double())


def test_moments_do_not_depend_on_batches():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 5)
    whole, parts = Moments(), Moments()
    whole.add(x)
    for part in x.split(4):
        parts.add(part)
    rows = x.double().movedim(1, -1).reshape(-1, 3)
    for found in (whole.result(), parts.result()):
        torch.testing.assert_close(found[0], rows.mean(0))
        torch.testing.assert_close(found[1], torch.cov(rows.T, correction=0))


def distillation(images, folder, teacher='default'):
    config = recipe(images)
    default = dict(config=tiny_classifier(8), checkpoint='random')
    config.model = dict(
        type='mmkd.Distiller',
        student=tiny_classifier(4),
        teacher=default if teacher == 'default' else teacher,
        objectives=dict(it=dict(type='mmkd.TokenDistillation')),
    )
    path = str(folder / 'distil.py')
    config.dump(path)
    return path


def made(config, folder, **options):
    maker = build_maker(dict(type='mmkd.Standardiser', config=config, at='backbone', **options))
    return torch.load(maker({}, str(folder)).checkpoint, weights_only=True)


def test_a_file_for_every_map_of_the_teacher(images, tmp_path):
    path = distillation(images, tmp_path)
    held = made(path, tmp_path, images=6, rule='standardise')
    widths = [len(mean) for mean in held['mean']]
    assert widths == [len(matrix) for matrix in held['matrix']] == [8, 16, 32]
    two = dict(a=dict(config=tiny_classifier(8), checkpoint='random'))
    two['b'] = dict(config=tiny_classifier(4), checkpoint='random')
    path = distillation(images, tmp_path, two)
    assert len(made(path, tmp_path, images=2, teacher_name='b')['mean'][0]) == 4
    with pytest.raises(ValueError, match='teacher_name=None is none of a, b'):
        made(path, tmp_path)


def test_bad_input(images, tmp_path):
    with pytest.raises(ValueError, match='rule must be one of'):
        made('x.py', tmp_path, rule='whiten')
    with pytest.raises(ValueError, match='images must be a whole number'):
        made('x.py', tmp_path, images=0)
    recipe(images).dump(tmp_path / 'plain.py')
    with pytest.raises(ValueError, match='plain.py has no teacher, whose features'):
        made(str(tmp_path / 'plain.py'), tmp_path)
    with pytest.raises(ValueError, match='not finite, or the same everywhere'):
        linear_map(torch.zeros(2), torch.zeros(2, 2), 'phi_s')
