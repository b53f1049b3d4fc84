"""A file in the place of layers: a student predicts as it does itself, and what cannot be scored."""

import copy

import pytest
import torch

from mmkd.deployment.networks import deployed
from mmkd.deployment.standing_in import standing_in
from mmkd.teacher import build_model
from mmkd.testing import (
    classification_batch,
    detection_batch,
    segmentation_batch,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)

CASES = dict(
    cls=(tiny_classifier(4), classification_batch, 'whole'),
    pspnet=(tiny_pspnet(4), segmentation_batch, 'whole'),
    retinanet=(tiny_retinanet(4), detection_batch, 'whole'),
    frcnn=(tiny_faster_rcnn(4), detection_batch, 'body'),
    body=(tiny_retinanet(4), detection_batch, 'body'),
)


def made(entry, part='whole'):
    torch.manual_seed(0)
    model = build_model(entry).eval()
    network = deployed(copy.deepcopy(model), part)

    def run(pixels):
        with torch.no_grad():
            found = network(pixels)
        return [found] if isinstance(found, torch.Tensor) else list(found)

    return model, network, run


def numbers(samples):
    """Everything that was predicted, most certain first."""
    found = []
    for sample in samples:
        if 'pred_instances' in sample:
            boxes = sample.pred_instances
            found += [boxes.scores, boxes.bboxes, boxes.labels.float()]
        elif 'seg_logits' in sample:
            found.append(sample.seg_logits.data)
        else:
            found.append(sample.pred_score)
    return found


@pytest.mark.parametrize('name', CASES)
def test_predictions_are_those_of_the_layers(name):
    entry, batch, part = CASES[name]
    model, network, run = made(entry, part)
    inputs, samples = batch(2)
    for sample in samples:
        sample.set_metainfo(dict(scale_factor=(2.0, 2.0)))
    with torch.no_grad():
        wanted = numbers(model(inputs, copy.deepcopy(samples), mode='predict'))
        for weight in model.backbone.parameters():
            weight.zero_()  # whoever still runs the student's own layers shows it
        size = tuple(inputs.shape[2:])
        with standing_in(model, network, run, size):
            found = numbers(model(inputs, copy.deepcopy(samples), mode='predict'))
        after = numbers(model(inputs, copy.deepcopy(samples), mode='predict'))
    assert sum(len(x) for x in found) > 0
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    assert not all(
        x.shape == y.shape and torch.allclose(x, y) for x, y in zip(after, wanted, strict=True)
    )


def test_smaller_images_of_detectors_are_padded():
    model, network, run = made(tiny_retinanet(4))
    inputs, samples = detection_batch(1)
    for sample in samples:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    seen = []
    size = (inputs.shape[2] + 32, inputs.shape[3] + 64)
    with standing_in(model, network, lambda x: seen.append(x) or run(x), size), torch.no_grad():
        model(inputs, samples, mode='predict')
    assert seen[0].shape == (1, 3, *size)
    padding = network.normalised(seen[0])[..., inputs.shape[2] :, :]
    assert padding.abs().max() < 1e-5
    with (
        standing_in(model, network, run, (32, 32)),
        pytest.raises(ValueError, match='32 x 32, and'),
    ):
        model(inputs, samples, mode='predict')


def test_other_images_of_a_segmentor():
    model, network, run = made(tiny_pspnet(4))
    inputs, samples = segmentation_batch(1)
    size = (inputs.shape[2] + 32, inputs.shape[3])
    words = f'takes images of {size[0]} x {size[1]}, and one of the test set has'
    with standing_in(model, network, run, size), pytest.raises(ValueError, match=words):
        model(inputs, samples, mode='predict')
