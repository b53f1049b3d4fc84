"""Transforms are asked about every dataset of a run, inside wrappers too."""

from types import SimpleNamespace

import pytest

from mmkd.checks.pipelines import check_pipelines


class Asked:
    def __init__(self):
        self.seen = []

    def check_dataset(self, dataset):
        self.seen.append(dataset)


def test_every_transform_that_can_say_is_asked():
    one, other = Asked(), Asked()
    first = SimpleNamespace(pipeline=SimpleNamespace(transforms=[object(), one, other]))
    second = SimpleNamespace(pipeline=SimpleNamespace(transforms=[one]))
    wrapped = SimpleNamespace(datasets=[first, SimpleNamespace()])
    check_pipelines(wrapped, second)
    assert one.seen == [first, second] and other.seen == [first]


def test_errors_are_passed_on():
    class Refuses:
        def check_dataset(self, dataset):
            raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        check_pipelines(SimpleNamespace(pipeline=SimpleNamespace(transforms=[Refuses()])))
