"""The path rule of teacher assistants."""

import pytest

from mmkd.chain.assistants import nearest_to_mean, paths


def test_the_assistant_nearest_to_the_mean():
    """The mean is 63.8: 62.1 is 1.7 away, 65.9 is 2.1."""
    assert nearest_to_mean(67.6, 60.0, dict(large=65.9, small=62.1)) == 'small'
    assert nearest_to_mean(67.6, 60.0, dict(large=65.4, small=62.1)) == 'large'
    with pytest.raises(ValueError, match='there is no candidate'):
        nearest_to_mean(1.0, 0.0, {})


def test_all_paths():
    assert [len(paths('abcd'[:k])) for k in range(5)] == [1, 2, 4, 8, 16]
    assert paths('ab') == [(), ('a',), ('b',), ('a', 'b')]
