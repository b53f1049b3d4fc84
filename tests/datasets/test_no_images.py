"""A data set of a stated length without images."""

import pytest
from mmengine.dataset import pseudo_collate

from mmkd.datasets import NoImages
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier
from mmkd.unlabelled import check_listeners


def test_samples_reach_a_model_as_any_others():
    dataset = NoImages(5, metainfo=dict(classes=('a', 'b')))
    assert len(dataset) == 5 and dataset.metainfo['classes'] == ('a', 'b')
    model = build_model(tiny_classifier(4))
    batch = model.data_preprocessor(pseudo_collate([dataset[i] for i in range(3)]), True)
    assert batch['inputs'].shape == (3, 3, 1, 1)
    assert [s.metainfo['labelled'] for s in batch['data_samples']] == [False] * 3
    assert NoImages(1, channels=1)[0]['inputs'].shape == (1, 1, 1)


def test_who_needs_labels_refuses_it():
    with pytest.raises(ValueError, match='No image of the training set has labels'):
        check_listeners({}, NoImages(2), tasks=True)


@pytest.mark.parametrize('options', [dict(length=0), dict(length=2.5), dict(length=1, channels=0)])
def test_bad_input(options):
    with pytest.raises(ValueError, match='must be a whole number of at least 1'):
        NoImages(**options)
