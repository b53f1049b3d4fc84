"""Top-k accuracy against counting by hand."""

import pytest
import torch
from mmengine.evaluator import Evaluator

from mmkd.evaluation import Accuracy
from mmkd.registry import METRICS
from mmkd.structures import ClassSample


def samples(scores, labels):
    return [
        ClassSample().set_gt_label(label).set_prediction(torch.tensor(score))
        for score, label in zip(scores, labels, strict=True)
    ]


def evaluate(metric, *batches):
    evaluator = Evaluator(metric)
    for batch in batches:
        evaluator.process(batch)
    return evaluator.evaluate(sum(map(len, batches)))


def test_counts_over_batches_of_unequal_size():
    first = samples([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]], [0, 1, 2])
    second = samples([[0.2, 0.5, 0.3]], [2])
    found = evaluate(Accuracy(topk=(1, 2, 3)), first, second)
    assert found == dict(top1=25.0, top2=75.0, top3=100.0)


def test_it_is_found_by_name():
    metric = METRICS.build(dict(type='mmkd.Accuracy', topk=(1,)))
    assert evaluate(metric, samples([[0.0, 1.0]], [1])) == dict(top1=100.0)


def test_more_than_there_are_classes_is_refused():
    with pytest.raises(ValueError, match=r'topk=\(1, 5\) .* the 2 there are'):
        evaluate(Accuracy(), samples([[0.0, 1.0]], [1]))


@pytest.mark.parametrize('topk', [(), (0, 1)])
def test_no_k_and_k_below_one_are_refused(topk):
    with pytest.raises(ValueError, match='topk must be'):
        Accuracy(topk=topk)


def test_exits_and_their_mean_are_scored_beside_the_prediction():
    """The mean of probabilities is right where either exit is sure enough."""
    found = samples([[0.0, 1.0], [0.6, 0.4]], [0, 0])
    exits = [[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0.6, 0.4]]]
    for sample, scores in zip(found, exits, strict=True):
        sample.set_exit_scores(torch.tensor(scores))
    assert evaluate(Accuracy(topk=(1, 2), exits=True), found[:1], found[1:]) == dict(
        top1=50.0,
        top2=100.0,
        exit0_top1=50.0,
        exit0_top2=100.0,
        exit1_top1=50.0,
        exit1_top2=100.0,
        mean_top1=50.0,
        mean_top2=100.0,
    )
    assert evaluate(Accuracy(topk=(1,)), found) == dict(top1=50.0), 'only if asked for'
    first = evaluate(Accuracy(topk=(1,), exits=True), found[:1])
    assert first == dict(top1=0.0, exit0_top1=100.0, exit1_top1=0.0, mean_top1=100.0)


def test_exits_of_a_network_without_any_are_refused():
    with pytest.raises(ValueError, match=r"exits=True needs .*type='mmkd.Exits'"):
        evaluate(Accuracy(topk=(1,), exits=True), samples([[0.0, 1.0]], [1]))
