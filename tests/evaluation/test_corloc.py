"""CorLoc: the sheet's numbers, and what it refuses."""

import pytest
import torch
from mmengine.evaluator import Evaluator

from mmkd.evaluation import CorLoc
from mmkd.registry import METRICS


def sample(predicted, truth):
    boxes, scores, labels = (
        (list(x) for x in zip(*predicted, strict=True)) if predicted else ([],) * 3
    )
    objects, classes = (list(x) for x in zip(*truth, strict=True)) if truth else ([],) * 2
    return dict(
        img_path='a.jpg',
        pred_instances=dict(
            bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
            scores=torch.tensor(scores),
            labels=torch.tensor(labels).long(),
        ),
        gt_instances=dict(
            bboxes=torch.tensor(objects).reshape(-1, 4).float(),
            labels=torch.tensor(classes).long(),
        ),
    )


def evaluate(*samples, **options):
    evaluator = Evaluator(CorLoc(**options))
    evaluator.dataset_meta = dict(classes=('cat', 'dog', 'cow'))
    evaluator.process(list(samples))
    return evaluator.evaluate(len(samples))


A = sample(
    [([0, 0, 6, 10], 0.9, 0), ([0, 0, 10, 10], 0.8, 0), ([50, 50, 60, 60], 0.7, 1)],
    [([0, 0, 10, 10], 0), ([20, 20, 30, 30], 1)],
)
B = sample([([0, 0, 11, 10], 0.5, 0)], [([0, 0, 9, 10], 0)])


def test_cl_1_is_a_mean_over_classes():
    found = evaluate(A, B)
    assert found == dict(corloc=50.0, corloc_cat=100.0, corloc_dog=0.0)


def test_only_the_best_box_counts():
    assert evaluate(A, iou=0.61)['corloc_cat'] == 0


def test_a_class_without_any_box_is_a_miss_and_one_without_objects_does_not_count():
    none = sample([], [([0, 0, 9, 10], 2)])
    empty = sample([([0, 0, 9, 10], 0.5, 1)], [])
    assert evaluate(none, B, empty) == dict(corloc=50.0, corloc_cat=100.0, corloc_cow=0.0)


def test_it_is_found_by_name():
    assert isinstance(METRICS.build(dict(type='mmkd.CorLoc')), CorLoc)


def test_samples_without_boxes_are_refused():
    without = sample([], [])
    del without['gt_instances']['bboxes']
    with pytest.raises(ValueError, match='CorLoc: a.jpg came without boxes .* no ImageLabels'):
        evaluate(without)


def test_no_object_at_all_is_refused():
    with pytest.raises(ValueError, match='CorLoc: no image has an object'):
        evaluate(sample([], []))


def test_options_are_checked():
    with pytest.raises(ValueError, match='CorLoc: iou'):
        CorLoc(iou=0)
