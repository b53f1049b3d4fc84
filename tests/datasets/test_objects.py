"""Objects in the annotations: boxes, labels, masks."""

import re

import pytest
from spoiling import build, edit

from mmkd.datasets import protection
from mmkd.datasets._objects import Objects, usable


@pytest.mark.parametrize(
    'box', [[float('nan'), 1, 2, 2], [9, 9, -3, 4], [500, 9, 3, 4], [9, 9, 0.5, 0.5]]
)
def test_boxes_that_the_loader_leaves_out_are_located(data, box, log):
    root, config = data('coco')
    edit(root, lambda c: [one.update(bbox=box) for one in c['annotations'] if one['image_id'] == 2])
    (report,) = protection.audit(build(config))
    assert report.degenerate > 0 and report.objects.kept > 0
    path = config['data_prefix']['img'] + '000002.jpg'
    assert f'boxes left out by the loader are in {root}/{path}' in log.text


def info(*instances, width=64, height=48):
    return dict(img_path='a.jpg', width=width, height=height, instances=list(instances))


def one(*box, label=0, **more):
    return dict(bbox=list(box), bbox_label=label, ignore_flag=0, **more)


def test_objects_are_counted_by_kind():
    found = Objects(classes=3)
    found.add(info(one(1, 1, 9, 9), one(5, 5, 5, 9), dict(one(1, 1, 9, 9), ignore_flag=1)), 0)
    found.add(info(), 1)
    found.add(info(dict(one(2, 2, 8, 8), ignore_flag=1)), 2)
    found.add(info(one(80, 1, 90, 9)), 3)
    assert (found.images, found.empty, found.kept, found.ignored) == (4, 2, 3, 2)
    assert found.degenerate == 1 and found.bad == [0, 3], 'without area, and beside the image'
    assert found.beyond == 1 and found.beyond_path == 'a.jpg'


@pytest.mark.parametrize(
    ('instance', 'options', 'words'),
    [
        (
            one(1, 2, 3),
            {},
            r'object 0 .* of a.jpg has bbox \[1, 2, 3\], where four .* \(x1, y1, x2',
        ),
        (one(1, 2, 'x', 4), {}, 'has bbox'),
        (one(1, 2, 3, 4, label=3), dict(classes=3), 'has label 3, but there are 3 classes'),
        (one(1, 2, 3, 4, label=-1), dict(classes=3), 'has label -1'),
        (one(1, 2, 3, 4), dict(with_mask=True), 'has no mask'),
        (one(1, 2, 3, 4, mask=[1, 2]), dict(with_mask=True), r'has the mask \[1, 2\]'),
        (
            one(1, 2, 3, 4, mask=dict(size=[9, 9], counts='x')),
            dict(with_mask=True),
            r'a mask of size \[9, 9\] .* its image \[48, 64\]',
        ),
        (
            one(1, 2, 3, 4, mask=dict(size=[48, 64], counts='x')),
            dict(with_mask=True, polygons=True),
            r'run-length code, and LoadAnnotations\(poly2mask=False\) ignores',
        ),
    ],
)
def test_objects_that_no_step_can_work_with(instance, options, words):
    found = Objects(**options)
    found.add(info(instance), 0)
    assert found.faulty == 1 and re.search(words, found.faults[0]), found.faults


def test_run_length_codes_of_ignored_objects_and_polygons_are_fine():
    found = Objects(with_mask=True, polygons=True)
    crowd = one(1, 2, 3, 4, mask=dict(size=[48, 64], counts='x')) | dict(ignore_flag=1)
    found.add(info(crowd, one(1, 2, 3, 4, mask=[[1, 2, 3, 4, 5, 6]])), 0)
    assert not found.faulty and found.kept == found.ignored == 1


def test_only_some_faults_are_kept_in_words():
    found = Objects(classes=1)
    found.add(info(*[one(1, 1, 2, 2, label=7)] * 9), 0)
    assert found.faulty == 9 and len(found.faults) == 3
    found.add_label(dict(img_path='b.jpg', gt_label=1))
    assert found.faulty == 10


def test_a_tenth_of_boxes_beyond_their_images_is_another_layout():
    found = Objects()
    found.add(info(*[one(1, 1, 2, 2)] * 9, one(1, 1, 99, 9)), 0)
    assert found.note() == '', 'one in ten may be rounded'
    found.add(info(one(1, 1, 99, 9)), 1)
    assert found.note().startswith('2 of 11 boxes reach beyond their image, for example in a.jpg')


def test_what_has_no_box_is_usable():
    assert usable({}, info()) and usable(one(1, 1, 2, 2), {})
    assert not usable(one(1, 1, float('nan'), 2), info()) and not usable(one(-9, 1, 0, 2), info())
