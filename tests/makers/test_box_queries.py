"""Black boxes that find objects: which networks do, and which answers of functions are understood."""

import numpy as np
import pytest
import torch
import view_toys
from mmengine.config import Config
from view_toys import BOX, SIZE, picture

from mmkd.chain import Product
from mmkd.makers.box_queries import DetectingFunction, DetectingNetwork, finds_objects
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet, tiny_retinanet


def test_who_finds_objects():
    for model in (tiny_retinanet(4), tiny_faster_rcnn(4)):
        assert finds_objects(build_model(model))
    for model in (tiny_classifier(4), tiny_pspnet(4)):
        assert not finds_objects(build_model(model))
    queries = torch.nn.Module()
    queries.panoptic_head, queries.test_cfg = torch.nn.Identity(), dict(panoptic_on=True)
    assert not finds_objects(queries)
    queries.test_cfg = dict(instance_on=True)
    assert finds_objects(queries)


def test_a_network_sees_its_own_test_pipeline(tmp_path):
    """Its scores are those of the boxes that mmdet itself finds."""
    model = tiny_retinanet(
        4,
        num_classes=2,
        test_cfg=dict(
            nms_pre=50,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=7,
        ),
    )
    Config(dict(view_toys.config()._cfg_dict, model=model)).dump(tmp_path / 'a.py')
    torch.manual_seed(0)
    network = build_model(model).eval()
    torch.save(dict(state_dict=network.state_dict(), meta={}), tmp_path / 'a.pth')
    found = DetectingNetwork(
        'X', 'student', Product(str(tmp_path / 'a.py'), str(tmp_path / 'a.pth'), '')
    )
    file = picture(tmp_path / 'a.png')
    scores = found.scores(file)
    assert scores.shape == (7,) and scores.dtype == torch.float32 and not found.names
    answer = found.boxes(file, 0.0)
    assert answer['size'] == SIZE and max(answer['scores']) == pytest.approx(
        float(scores.max()), abs=1e-6
    )


def test_a_function_sees_rgb_and_its_boxes_are_cut(tmp_path):
    file, seen = picture(tmp_path / 'a.png'), []

    def finds(image):
        seen.append(image)
        boxes = [[-5, 2, 30, 99], BOX, [3, 3, 3, 9], [70, 1, 80, 9]]
        return dict(boxes=np.array(boxes), scores=[0.9, 0.01, 0.8, 0.8], labels=[1, 0, 0, 0])

    found = DetectingFunction('X', finds, 'xy').boxes(file, 0.05)
    assert seen[0].shape == (*SIZE, 3) and seen[0].dtype == np.uint8
    assert found == dict(size=[*SIZE], boxes=[[0, 2, 30, 40]], scores=[0.9], labels=[1])
    none = DetectingFunction('X', lambda image: dict(boxes=[], scores=[], labels=[]), 'xy')
    assert none.boxes(file, 0.05) == dict(size=[*SIZE], boxes=[], scores=[], labels=[])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (None, 'must be a mapping with boxes, scores, labels, found a list'),
        (dict(box=1), 'found a dict with box'),
        (dict(scores=[0.5, 0.5]), r'found \(1, 4\), \(2,\) and \(1,\)'),
        (dict(boxes=[BOX[:3]]), r'must have boxes \(P, 4\)'),
        (dict(boxes=[[0, 0, float('nan'), 1]]), 'coordinates that are not finite'),
        (dict(scores=[1.5]), 'not from 0 to 1'),
        (dict(scores=[float('nan')]), 'not from 0 to 1'),
        (dict(labels=[2]), r'has the labels 2, but the 2 classes \(x, y\) are numbered from 0'),
        (dict(labels=['x']), 'has the labels x, but'),
        (dict(labels=[-1]), 'has the labels -1, but'),
    ],
)
def test_bad_answers(tmp_path, change, message):
    good = dict(boxes=[BOX], scores=[0.5], labels=[1])
    answer = [] if change is None else change if 'box' in change else good | change
    box = DetectingFunction('X', lambda image: answer, 'xy')
    with pytest.raises(ValueError, match=f'X: the answer of the black box to .*a.png .*{message}'):
        box.boxes(picture(tmp_path / 'a.png'), 0.05)
