"""Where things are in segmentors, their classes, and their labels."""

import pytest
import torch
from cases import method

from mmkd.distiller import Distiller
from mmkd.families import segmentor
from mmkd.teacher import Teacher, build_model
from mmkd.testing import boxes, label_maps, segmentation_batch, tiny_pspnet


def test_addresses_in_a_segmentor():
    model = build_model(tiny_pspnet(4, auxiliary=True))
    assert segmentor.logits_tap(model) == 'decode_head.conv_seg'
    assert segmentor.feature_tap(model) == 'decode_head.dropout@in[0]'
    assert segmentor.auxiliary_tap(model) == 'auxiliary_head.conv_seg'
    assert segmentor.auxiliary_tap(build_model(tiny_pspnet(4))) is None
    model.decode_head = torch.nn.ModuleList([torch.nn.Identity(), model.decode_head])
    assert segmentor.logits_tap(model) == 'decode_head.1.conv_seg'


def test_classes_count_output_channels():
    assert segmentor.classes(build_model(tiny_pspnet(4))) == 3
    binary = tiny_pspnet(4, num_classes=2, decode_head=dict(out_channels=1, threshold=0.3))
    assert segmentor.classes(build_model(binary)) == 1


def test_valid_pixels_are_resized_by_nearest_neighbour():
    labels = torch.zeros(2, 4, 4).long()
    labels[0, :2] = 255
    samples = label_maps(labels)
    assert torch.equal(segmentor.labels(samples), labels)
    valid = segmentor.valid_pixels(samples, (2, 2))
    assert valid.tolist() == [[[False, False], [True, True]], [[True, True], [True, True]]]
    assert segmentor.valid_pixels(samples, (2, 2), ignore_index=0).sum() == 2
    with pytest.raises(ValueError, match='Segmentation labels are needed'):
        segmentor.labels(boxes([]))


def distiller(name, **options):
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_pspnet(width)) for width in (4, 8))
    return Distiller(student, dict(it=method(name)(**options)), Teacher(teacher, 'random')).train()


def test_labels_are_looked_at_before_the_student_s_own_loss():
    """mmseg says 'Target 77 is out of bounds', on a GPU not even that."""
    inputs, samples = segmentation_batch(2, (32, 48))
    for sample in samples:
        sample.gt_sem_seg.data[..., :4, :] = 77
    model = distiller('SKDPixel')
    with pytest.raises(ValueError, match='EncoderDecoder: labels reach from 0 to 77, .* 3 classes'):
        model.loss(inputs, samples)
    for sample in samples:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data == 77] = -1
    with pytest.raises(ValueError, match='labels reach from -1 to 2'):
        model.loss(inputs, samples)
    model.student.decode_head.ignore_index = -1
    with pytest.raises(ValueError, match='labels reach from 0 to 255, .* ignore_index is -1'):
        model.loss(inputs, samples)
    for sample in samples:
        del sample.gt_sem_seg
    with pytest.raises(ValueError, match='without gt_sem_seg; add LoadAnnotations'):
        model.loss(inputs, samples)
    assert model.guard.batches == 0
    model.guard.batches = model.guard.steps  # later it costs nothing
    with pytest.raises(AttributeError):
        model.loss(inputs, samples)
    for sample in samples:
        sample.gt_depth_map = None
    segmentor.check_batch(model.student, samples)  # the labels of depth are others


def test_good_labels_pass():
    model = distiller('SKDPixel')
    assert model.loss(*segmentation_batch(2, (32, 48)))['kd.it.loss'] > 0
    assert model.guard.batches == 1
    two = build_model(
        tiny_pspnet(4, decode_head=dict(num_classes=2, out_channels=1, threshold=0.4))
    )
    inputs, samples = segmentation_batch(2, (32, 48))
    for sample in samples:
        sample.gt_sem_seg.data.clamp_(max=1)
    segmentor.check_batch(two, samples)
