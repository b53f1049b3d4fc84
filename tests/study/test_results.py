"""The numbers of the table, from scores that can be reckoned by hand."""

import math

import pytest

from mmkd.study.results import Result, choose_metric, read_result, summarise
from mmkd.study.rows import DISTILLED, PLAIN, TEACHER, Row

NAN = pytest.approx(math.nan, nan_ok=True)


def result(kind, *scores, **more):
    metrics = {seed: dict(mAP=score) for seed, score in enumerate(scores)}
    return Result(Row(kind, '', kind, 'a.py'), metrics, **more)


def test_gain_share_and_indices():
    teacher, plain = result(TEACHER, 0.5), result(PLAIN, 0.3, 0.4, step={0: 0.1}, peak={0: 100})
    one = result(DISTILLED, 0.36, 0.42, step={0: 0.15}, peak={0: 110}, seconds={0: 60.0, 1: 120.0})
    found = summarise(one, 'mAP', plain, teacher, 100)
    assert found.scores == pytest.approx({0: 36, 1: 42})
    assert (found.mean, found.std) == pytest.approx((39, 18**0.5))
    assert (found.gain, found.gain_std) == pytest.approx((4, 8**0.5)), '6 and 2'
    assert found.share == pytest.approx(4 / 15), 'of the way from 35 to 50'
    assert (found.behind, found.better) == pytest.approx((11 / 50, 4 / 35))
    assert (found.step, found.memory, found.minutes) == pytest.approx((1.5, 1.1, 1.5))


def test_of_a_metric_that_is_to_be_low_gains_are_reductions():
    teacher, plain = result(TEACHER, 0.2), result(PLAIN, 0.5, 0.3)
    found = summarise(result(DISTILLED, 0.3, 0.3), 'mAP', plain, teacher, lower=True)
    assert (found.mean, found.gain) == pytest.approx((0.3, 0.1)), '0.2 and 0'
    assert found.share == pytest.approx(0.5), 'of the way from 0.4 to 0.2'
    assert (found.behind, found.better) == pytest.approx((0.5, 0.25))
    worse = summarise(plain, 'mAP', plain, result(TEACHER, 0.6), lower=True)
    assert math.isnan(worse.share), 'there is no gap'


def test_gains_are_over_the_same_seeds():
    plain = result(PLAIN, 30.0, 40.0)
    del plain.metrics[0]
    found = summarise(result(DISTILLED, 10.0, 43.0), 'mAP', plain, result(TEACHER, 50.0))
    assert (found.gain, found.share) == pytest.approx((3, 0.3)) and math.isnan(found.gain_std)


def test_what_is_not_known_is_nan():
    one = result(DISTILLED, 10.0)
    found = summarise(one, 'mAP', None, None)
    assert [found.gain, found.share, found.behind, found.step, found.minutes] == 5 * [NAN]
    plain, weak = result(PLAIN, 30.0), result(TEACHER, 20.0)
    assert math.isnan(summarise(one, 'mAP', plain, weak).share), 'there is no gap'
    for row in (plain, weak):
        assert math.isnan(summarise(row, 'mAP', plain, weak).gain)


def test_the_metric_that_all_have():
    one, other = result(PLAIN, 1.0), result(DISTILLED, 1.0)
    one.metrics = {0: dict(a=1.0, mIoU=1.0, top1=1.0)}
    other.metrics = {3: dict(b=1.0, top1=1.0, a=1.0)}
    assert choose_metric([one, other, result(TEACHER)], None) == 'top1'
    assert choose_metric([one, other], 'accuracy/a') == 'a'
    assert choose_metric([result(TEACHER)], None) == 'score'
    with pytest.raises(ValueError, match='have no metric mIoU. .* plain: a, mIoU, top1; dist'):
        choose_metric([one, other], 'mIoU')
    other.metrics = {0: dict(b=1.0)}
    with pytest.raises(ValueError, match='have no metric in common'):
        choose_metric([one, other], None)


def test_runs_that_are_missing(tmp_path):
    row = Row('a', '', DISTILLED, 'a.py')
    found = read_result(row, [0, 1], str(tmp_path), {'a_s1': 'out of luck'})
    assert not found.metrics and found.problem == 'failed: out of luck'
    refused = Row('a', '', DISTILLED, 'a.py', refused='refused: no')
    assert read_result(refused, [0], str(tmp_path), {}).problem == 'refused: no'
