"""The weights in a checkpoint, and what it says of the data."""

import pytest
import torch

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.weights import below, dataset_meta_of, weights_in


@pytest.mark.parametrize('empty', [{}, dict(state_dict={}), dict(meta=1, epoch=2)])
def test_no_weights(empty):
    with pytest.raises(CheckpointError, match='no weights'):
        weights_in(empty)


A, B = torch.ones(1), torch.zeros(2)


@pytest.mark.parametrize(
    ('checkpoint', 'wanted'),
    [
        ({'a': A, 'epoch': 3}, {'a': A}),
        ({'state_dict': {'a': A}, 'b': B}, {'a': A}),
        ({'model': {'a': A, 1: B}}, {'a': A}),
        ({'student': {'a': A}, 'teacher': {'a': B}}, {'student.a': A, 'teacher.a': B}),
        ({'part': {'a': A}, 'optimizer': {'b': B}, 'meta': {'c': B}}, {'part.a': A}),
    ],
)
def test_layouts_of_files(checkpoint, wanted):
    found = weights_in(checkpoint)
    assert list(found) == list(wanted)
    assert all(found[key] is value for key, value in wanted.items())


def test_weights_below_a_prefix():
    weights = {'student.a': A, 'student.b': B, 'teacher.a': B}
    assert below(weights, 'student.', 'x.pth') == {'a': A, 'b': B}
    assert below(weights, '', 'x.pth') == weights
    with pytest.raises(
        CheckpointError, match="no weights under 'neck.'; it has student., teacher."
    ):
        below(weights, 'neck.', 'x.pth')


@pytest.mark.parametrize(
    ('meta', 'told'),
    [
        (dict(dataset_meta=dict(CLASSES=('a', 'b'), palette=None)), dict(classes=('a', 'b'))),
        (dict(CLASSES=['a']), dict(classes=['a'])),
        (dict(dataset_meta=dict(classes='ab', name='x')), dict(name='x')),
        ('text', {}),
        (None, {}),
    ],
)
def test_what_a_file_says_of_its_data(meta, told):
    assert dataset_meta_of(dict(meta=meta)) == told
