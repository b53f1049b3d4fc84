"""AEKD: the weights of teachers whose gradients are known."""

import numpy as np
import pytest
import torch
from balance_toys import Named, objectives, step

from mmkd.balance import AEKD
from mmkd.balance.aekd import teacher_weights


def bound(names='ab', options=None, **balance):
    result = AEKD(**balance)
    result.bind(objectives(*names, **(options or {})))
    return result


@pytest.mark.parametrize(
    ('cap', 'normalise', 'wanted'),
    [
        (0.6, False, (1.2, 0.8)),
        (0.6, True, (4 / 3, 2 / 3)),
        (1.0, False, (1.6, 0.4)),
        (1.0, True, (4 / 3, 2 / 3)),
        (0.5, False, (1, 1)),
        (0.5, True, (1, 1)),
    ],
)
def test_values_of_the_sheet(cap, normalise, wanted):
    balance = bound(cap=cap, normalise=normalise)
    found = balance(*step(dict(a=[1.0, 0.0], b=[0.0, 2.0])))
    assert [found['a'], found['b']] == pytest.approx(wanted, abs=1e-6)


def test_three_teachers_of_the_sheet():
    vectors = np.array([(1, 0), (0, 1), (-1, 0)], dtype=float)
    np.testing.assert_allclose(teacher_weights(vectors, 0.4), (0.4, 0.2, 0.4), atol=1e-6)
    np.testing.assert_allclose(teacher_weights(vectors, 1 / 3), [1 / 3] * 3, atol=0)


def test_a_cap_of_one_over_m_is_no_balance():
    found = bound('abc', cap=1 / 3)(*step(dict(a=[1.0], b=[5.0], c=[-2.0])))
    assert found == dict(a=1.0, b=1.0, c=1.0)


def test_one_teacher_and_identical_gradients_have_equal_weights():
    assert teacher_weights(np.array([[3.0, 4.0]]), 1.0).tolist() == [1.0]
    for normalise in (True, False):
        same = teacher_weights(np.array([[1.0, 2.0]] * 3), 0.6, normalise)
        np.testing.assert_allclose(same, [1 / 3] * 3, atol=1e-12)


def test_normalised_weights_exceed_the_cap_and_raw_ones_prefer_a_short_gradient():
    vectors = np.array([(0.1, 0.0), (0.0, 1.0)])
    assert teacher_weights(vectors, 0.6)[0] > 0.9
    assert teacher_weights(vectors, 0.6, normalise=False)[0] == pytest.approx(0.6)
    parallel = np.array([(1.0, 0.0), (3.0, 0.0)])
    np.testing.assert_allclose(teacher_weights(parallel, 1.0, normalise=False), (1, 0), atol=1e-6)
    np.testing.assert_allclose(teacher_weights(parallel, 1.0), (0.75, 0.25), atol=1e-6)


def test_losses_of_different_kinds_get_gradients_of_equal_length():
    """Of orthogonal ones, whatever their weights; schedules keep their shape."""
    schedule = dict(value=5.0, warmup=100)
    vectors, weights = dict(a=[1.0, 0.0], b=[0.0, 2.0]), dict(a=0.1, b=2.5)
    balance = AEKD(cap=1.0)
    balance.bind(dict(a=Named(weight=0.1), b=Named(weight=schedule)))
    found = balance(*step(vectors, weights=weights, iteration=50, total=1000))
    assert found['a'] * 0.1 * 1 == pytest.approx(found['b'] * 5.0 * 2, abs=1e-6)
    assert sum(found.values()) == pytest.approx(2)


@pytest.mark.parametrize('bad', [0.0, float('nan'), float('inf')])
def test_a_gradient_that_is_zero_or_not_finite_gives_equal_weights(bad):
    balance = bound()
    assert balance.logged() == {'balance.undecided': 0.0}
    assert balance(*step(dict(a=[bad], b=[1.0]))) == dict(a=1.0, b=1.0)
    again = bound()
    again.load_state_dict(balance.state_dict())
    assert again.logged() == {'balance.undecided': 1.0}


def test_a_resting_teacher_is_left_out_and_the_others_share():
    late = AEKD(cap=1.0, normalise=False)
    late.bind(dict(a=Named(), b=Named(weight=dict(value=1.0, start=10)), c=Named()))
    terms, *rest = step(dict(a=[1.0, 0.0], b=[9.0, 9.0], c=[0.0, 2.0]))
    assert late(terms, *rest) == pytest.approx(dict(a=1.6, c=0.4))
    alone = AEKD(over=['a', 'b'], cap=1.0)
    alone.bind(dict(a=Named(), b=Named(weight=dict(value=1.0, start=10))))
    assert alone(*step(dict(a=[1.0], b=[1.0]))) == dict(a=1.0)


def test_spaces():
    """Two places: means over places cancel, maps do not."""
    shape, at = (1, 1, 1, 2), dict(cap=1.0, normalise=False)
    opposed = dict(a=[1.0, -0.9], b=[0.0, 1.0])
    by_map = bound(space='feature', **at)(*step(opposed, shape=shape))
    by_mean = bound(space='logit_mean', **at)(*step(opposed, shape=shape))
    assert by_mean['a'] == pytest.approx(2, abs=1e-6)
    # v2 (v2 - v1) / |v1 - v2|^2 of (1, -.9) and (0, 1)
    assert by_map['a'] == pytest.approx(2 * 1.9 / (1 + 1.9**2), abs=1e-6)
    assert bound(space=None, **at)(*step(opposed, shape=shape)) == by_map


def test_images_of_a_batch_are_averaged():
    """Opposite gradients of two images cancel."""
    shape = (2, 2)
    vectors = dict(a=[1.0, 5.0, 0.0, -5.0], b=[0.0, 0.0, 0.0, 2.0])
    found = bound(cap=1.0, normalise=False)(*step(vectors, shape=shape))
    assert found == pytest.approx(dict(a=1.6, b=0.4), abs=1e-6)


def test_without_gradients_the_weights_are_equal():
    args = step(dict(a=[1.0], b=[3.0]))
    with torch.no_grad():
        assert bound()(*args) == dict(a=1.0, b=1.0)


@pytest.mark.parametrize(
    ('names', 'options', 'message'),
    [
        ('a', {}, r"at least two teachers, found \['a'\]"),
        ('ab', dict(over='a'), r"at least two teachers, found \['a'\]"),
        ('ab', dict(over=['a', 'A']), 'at least two teachers'),
        ('ab', dict(over=3), 'AEKD: over must be a list, found 3'),
        ('ab', dict(over=['a', 'c']), "over names 'c'; the objectives are a, b"),
        ('abc', dict(cap=0.3), 'cap=0.3 is below 1/3.*at least 0.3333'),
        ('ab', dict(cap=0), 'cap must be a finite number above 0'),
        ('ab', dict(space='logit'), 'space must be one of'),
        ('ab', dict(normalise='yes'), 'normalise must be True or False'),
    ],
)
def test_bad_options(names, options, message):
    with pytest.raises(ValueError, match=message):
        bound(names, **options)


def test_one_that_is_named_twice_counts_once():
    vectors = dict(a=[1.0, 0.0], b=[0.0, 2.0])
    once = bound(over=['a', 'b'])(*step(vectors))
    assert bound(over=['a', 'A', 'b'])(*step(vectors)) == once


def test_one_that_always_rests_and_taps_that_differ():
    balance = AEKD()
    with pytest.raises(ValueError, match="objective 'b' has the weight 0"):
        balance.bind(dict(a=Named(), b=Named(weight=0)))
    with pytest.raises(ValueError, match='no student.s tap in common .a: neck; b: backbone'):
        AEKD().bind(dict(a=Named(), b=Named(student='backbone')))
    AEKD(at='backbone').bind(dict(a=Named(), b=Named(student='backbone')))


def test_a_term_without_a_gradient_there():
    terms, *rest = step(dict(a=[1.0], b=[1.0]))
    terms['b'] = {'kd.b.loss': torch.ones((), requires_grad=True) * 2}
    with pytest.raises(ValueError, match="objective 'b' has no gradient at neck"):
        bound()(terms, *rest)


def test_what_the_plan_says():
    first, second = bound(cap=0.7).describe()
    assert first == 'AEKD over a, b: cap 0.7, weights of directions at neck'
    assert 'every step has 2 more backward passes' in second
    assert 'gradients' in bound(normalise=False).describe()[0]
