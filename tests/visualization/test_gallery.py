"""Models side by side: rows for the demo, a gallery for tools/compare.py."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

from mmkd.registry import MODELS
from mmkd.visualization.gallery import COLUMNS, WIDTH, Gallery, comparison
from mmkd.visualization.shown import PANEL, Shown


def test_a_comparison_has_a_panel_for_each_model():
    sample = BaseDataElement(metainfo=dict(img_shape=(40, 60)))
    instances = dict(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))
    sample.gt_instances = InstanceData(**instances)
    result = BaseDataElement()
    result.pred_instances = InstanceData(**instances, scores=torch.tensor([0.9]))
    one = Shown(np.zeros((40, 60, 3), np.uint8), sample, 0, (40, 60), ('disc', 'ring'))
    picture = comparison([one, one], dict(student=[result] * 2, teacher=[result] * 2))
    assert picture.shape[1] == 3 * PANEL + 2 * 12


@pytest.mark.parametrize('kind', ['detector', 'segmentor'])
def test_a_gallery_draws_each_model_on_images_of_the_test_set(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    config.test_dataloader = config.val_dataloader
    before = config.pretty_text
    gallery = Gallery(config, count=9)
    model = MODELS.build(config.model).student
    for name in ('large', 'small', 'plain', 'kd'):
        gallery.add(name, model)
    assert gallery.indices == [0, 1] and config.pretty_text == before
    paths = gallery.save(tmp_path / 'new')
    assert [path.name[:7] for path in paths] == ['000000_', '000001_']
    for path in paths:
        height, width = cv2.imread(str(path)).shape[:2]
        assert width == COLUMNS * WIDTH + (COLUMNS - 1) * 12 + 2 * 16
        assert height > 2 * WIDTH * 0.7  # the fifth panel begins a second row


def test_images_are_spread_over_the_test_set(detector):
    detector.test_dataloader = detector.train_dataloader
    gallery = Gallery(detector, count=2)
    gallery.add('student', MODELS.build(detector.model).student)
    assert gallery.indices == [0, 2]
