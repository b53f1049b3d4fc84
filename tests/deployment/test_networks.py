"""What goes into a file gives the predictions of the student."""

import pytest
import torch
from mmengine.config import Config

from mmkd.deployment.networks import Anchors, Body, Classes, Pixels, deployed
from mmkd.teacher import build_model
from mmkd.testing import (
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_retinanet,
)

SIZE = (64, 96)


def student(model, scope='mmengine'):
    torch.manual_seed(0)
    return build_model(Config(dict(model=model, default_scope=scope)))


def seen(model):
    """Pixels from 0 to 255, and what the network sees of them."""
    pixels = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 255
    preprocessor = model.data_preprocessor
    return pixels, (pixels - preprocessor.mean) / preprocessor.std


@torch.no_grad()
def test_classifier():
    network = deployed(student(tiny_classifier(4)))
    pixels, images = seen(network.model)
    assert isinstance(network, Classes) and not network.model.training
    assert torch.equal(network(pixels), network.model(images))


@torch.no_grad()
def test_segmentor():
    network = deployed(student(tiny_pspnet(4), 'mmseg'))
    pixels, images = seen(network.model)
    assert isinstance(network, Pixels)
    assert torch.equal(network(pixels), network.model.predict(images)[0].seg_logits.data[None])


@torch.no_grad()
def test_detector_with_anchors():
    network = deployed(student(tiny_retinanet(4), 'mmdet'))
    boxes, scores = network(seen(network.model)[0])
    assert isinstance(network, Anchors) and boxes.shape[:2] == scores.shape[:2]
    assert boxes[..., 0::2].max() <= SIZE[1] and boxes[..., 1::2].max() <= SIZE[0]
    assert boxes.min() >= 0 and scores.min() > 0 and scores.max() < 1


@torch.no_grad()
def test_the_body_of_any_network():
    network = deployed(student(tiny_faster_rcnn(4), 'mmdet'), 'body')
    pixels, images = seen(network.model)
    maps = network.model.extract_feat(images)
    rpn = [x for level in network.model.rpn_head(maps) for x in level]
    found = network(pixels)
    assert isinstance(network, Body) and len(found) == len(maps) + len(rpn)
    assert all(torch.equal(a, b) for a, b in zip(found, (*maps, *rpn), strict=True))


@pytest.mark.parametrize('model', [tiny_faster_rcnn(4), tiny_fcos(4)])
def test_who_is_refused(model):
    with pytest.raises(ValueError, match='export writes classifiers, .* Take --part body'):
        deployed(student(model, 'mmdet'))
