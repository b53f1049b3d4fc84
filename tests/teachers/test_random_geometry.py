"""Which transforms of a pipeline move pixels by chance."""

from types import SimpleNamespace

import pytest

from mmkd.teachers.random_geometry import random_geometry


def named(name, **attributes):
    return type(name, (), attributes)()


def data(*transforms):
    return SimpleNamespace(pipeline=SimpleNamespace(transforms=list(transforms)))


@pytest.mark.parametrize(
    'name',
    [
        'RandomCrop',
        'RandomResize',
        'RandomChoiceResize',
        'RandomAffine',
        'Mosaic',
        'CachedMixUp',
        'Albu',
        'RandomShift',
        'RandomErasing',
        'Expand',
        'RandomRotate',
        'RandomResizedCrop',
        'MinIoURandomCrop',
        'CutOut',
        'RandAugment',
    ],
)
def test_what_moves(name):
    assert random_geometry(data(named(name)), flips=True) == [name]


@pytest.mark.parametrize(
    'name',
    [
        'LoadImageFromFile',
        'Resize',
        'Pad',
        'CenterCrop',
        'PhotoMetricDistortion',
        'ColorJitter',
        'PackClassInputs',
        'Normalize',
    ],
)
def test_what_does_not(name):
    assert random_geometry(data(named(name)), flips=True) == []


def test_flips_matter_to_pixels():
    flip = named('RandomFlip', prob=0.5)
    assert random_geometry(data(flip), flips=True) == []
    assert random_geometry(data(flip), flips=False) == ['RandomFlip']
    assert random_geometry(data(named('RandomFlip', prob=0)), flips=False) == []


def test_inside_of_wrappers_and_choices():
    choice = named('RandomChoice')
    choice.transforms = [[named('RandomAffine')], [named('ColorJitter')]]
    inner = data(choice)
    wrapped = SimpleNamespace(dataset=SimpleNamespace(datasets=[inner, data(named('Mosaic'))]))
    assert random_geometry(wrapped, flips=True) == ['RandomAffine', 'Mosaic']
