"""MergeDetections: clusters of boxes of the sheet, unions of classes, a COCO file."""

import json

import numpy as np
import pytest

from mmkd.chain import build_maker
from mmkd.makers.merge_detections import merge_boxes, overlap


def found(*boxes):
    rows = np.array(boxes, dtype=float).reshape(-1, 5)
    return rows[:, :4], rows[:, 4]


def test_values_of_the_sheet():
    a, b = found((10, 10, 30, 30, 0.9)), found((12, 10, 32, 30, 0.6))
    assert overlap(a[0][0], b[0])[0] == pytest.approx(0.818182, abs=1e-6)
    boxes, scores = merge_boxes(dict(a=a, b=b), dict(a=0.75, b=0.25))
    np.testing.assert_allclose(boxes, [(10.363636, 10, 30.363636, 30)], atol=1e-6)
    np.testing.assert_allclose(scores, [0.825], atol=1e-9)


def test_who_knows_the_class_and_saw_nothing_counts_as_zero():
    own = found((0, 0, 10, 10, 0.8))
    _, scores = merge_boxes(dict(a=own, b=found()), dict(a=0.5, b=0.5))
    assert scores.tolist() == [0.4]
    _, scores = merge_boxes(dict(a=own), dict(a=0.5, b=0.5))
    assert scores.tolist() == [0.8], 'and who does not know it says nothing'


def test_one_teacher_keeps_its_boxes():
    own = found((0, 0, 10, 10, 0.5), (50, 50, 60, 60, 0.9))
    boxes, scores = merge_boxes(dict(a=own), dict(a=1.0))
    assert boxes.tolist() == own[0][::-1].tolist() and scores.tolist() == [0.9, 0.5]


def test_a_score_never_exceeds_the_best():
    twice = found((0, 0, 10, 10, 0.8), (0, 0, 10, 9, 0.7))
    _, scores = merge_boxes(dict(a=twice, b=found((0, 0, 10, 10, 0.9))), dict(a=0.5, b=0.5))
    assert scores.tolist() == pytest.approx([0.85])


def test_the_strongest_begins_and_only_what_overlaps_it_joins():
    """A chain of boxes: the third overlaps the second, but not the first."""
    chain = found((0, 0, 10, 10, 0.9), (2, 0, 12, 10, 0.5), (4, 0, 14, 10, 0.8))
    boxes, scores = merge_boxes(dict(a=chain), dict(a=1.0))
    assert len(scores) == 2 and scores.tolist() == [0.9, 0.8]
    assert boxes[1].tolist() == [4, 0, 14, 10]


def test_nothing_found_and_teachers_without_weight():
    boxes, scores = merge_boxes(dict(a=found(), b=found()), dict(a=0.5, b=0.5))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    lone = merge_boxes(dict(a=found(), b=found((0, 0, 1, 1, 0.9))), dict(a=1.0, b=0.0))
    assert not len(lone[1])
    zero = merge_boxes(dict(a=found((0, 0, 1, 1, 0.0))), dict(a=1.0))
    assert zero[1].tolist() == [0.0]


@pytest.fixture
def files(tmp_path):
    """Site a knows cats and dogs, site b dogs and cars, by other numbers."""

    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    def categories(**ids):
        return dict(categories=[dict(id=i, name=name) for name, i in ids.items()])

    def row(category, box, score, image=7):
        return dict(image_id=image, category_id=category, bbox=box, score=score)

    images = [dict(id=7, file_name='x.png', width=64, height=64)]
    return dict(
        images=write('images.json', dict(images=images)),
        members=dict(
            a=dict(
                results=write(
                    'a.bbox.json', [row(1, [0, 0, 10, 10], 0.8), row(2, [20, 20, 5, 5], 0.6)]
                ),
                annotations=write('a.json', categories(cat=1, dog=2)),
            ),
            b=dict(
                results=write(
                    'b.bbox.json', [row(1, [20, 20, 5, 5], 0.9), row(2, [1, 1, 3, 3], 0.01)]
                ),
                annotations=write('b.json', categories(dog=1, car=2)),
            ),
        ),
    )


def made(folder, **options):
    product = build_maker(dict(type='mmkd.MergeDetections', **options))({}, str(folder))
    return json.loads(open(product.checkpoint).read())


def test_the_file_is_a_coco_file_of_the_union(files, tmp_path):
    coco = made(tmp_path, **files, weights=dict(a=3.0, b=1.0))
    assert [c['name'] for c in coco['categories']] == ['cat', 'dog', 'car']
    rows = {(a['image_id'], a['category_id']): a for a in coco['annotations']}
    assert rows.keys() == {(7, 1), (7, 2)}, 'the car is below the least score'
    assert rows[7, 1]['score'] == 0.8
    assert rows[7, 2]['score'] == pytest.approx(0.75 * 0.6 + 0.25 * 0.9)
    assert rows[7, 2]['bbox'] == [20, 20, 5, 5] and rows[7, 2]['area'] == 25
    assert [a['id'] for a in coco['annotations']] == [1, 2]


def test_classes_of_the_student_and_every_box(files, tmp_path):
    coco = made(tmp_path, **files, classes=['car', 'dog'], least=0)
    assert [c['name'] for c in coco['categories']] == ['car', 'dog']
    assert {a['category_id'] for a in coco['annotations']} == {1, 2}


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(members={}), ValueError, 'needs members=dict'),
        (dict(members=dict(a=dict(results='x'))), ValueError, "member 'a' must be dict"),
        (dict(classes=['cat']), ValueError, "member 'b' knows none of"),
        (dict(classes=['dgo', 'car']), ValueError, "the class 'dgo'; .* Did you mean 'dog'"),
        (dict(iou=2), ValueError, 'iou must be a finite number from 0 to 1'),
        (dict(least=-1), ValueError, 'least must be a finite number from 0 to 1'),
        (dict(weights=dict(a=1.0)), ValueError, 'weights must be a number for each'),
        (dict(weights=dict(a=-1.0, b=1.0)), ValueError, 'at least 0'),
        (dict(images='nowhere.json'), FileNotFoundError, 'no file nowhere.json'),
    ],
)
def test_bad_input(options, error, message, files, tmp_path):
    with pytest.raises(error, match=message):
        made(tmp_path, **files | options)
