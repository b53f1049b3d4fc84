"""Predictions of segmentors pixel by pixel, as mmseg itself makes them."""

import pytest
import torch
from torch import nn

from mmkd.teacher import Teacher, build_model
from mmkd.testing import MEAN, STD, segmentation_batch, tiny_pspnet
from mmkd.visualization.predicted_classes import predicted_classes, prediction_views, segments

SIZE = (40, 72)


def segmentor(seed, **changes):
    torch.manual_seed(seed)
    model = build_model(tiny_pspnet(4, **changes))
    model.init_weights()
    nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


@pytest.fixture
def data():
    inputs, samples = segmentation_batch(2, SIZE)
    for sample in samples:
        sample.set_metainfo(dict(pad_shape=SIZE, img_padding_size=(0, 0, 0, 0)))
    return inputs, samples


@pytest.mark.parametrize('head', [dict(), dict(num_classes=2, out_channels=1, threshold=0.4)])
def test_as_mmseg_predicts(data, head):
    model = segmentor(0, decode_head=head).train()
    found = predicted_classes(model, *data)
    assert model.training and found.shape == (2, *SIZE)
    with torch.no_grad():
        results = model.eval().predict(*data)
    wanted = torch.stack([sample.pred_sem_seg.data.squeeze(0) for sample in results])
    assert torch.equal(found, wanted) and len(found.unique()) > 1


def test_wrong_and_different(data):
    inputs, samples = data
    student, teacher = segmentor(0), segmentor(1)
    views = prediction_views(student, dict(coach=Teacher(teacher, 'random')), inputs, samples)
    maps = {view.title: view.maps for view in views}
    own, wanted = (predicted_classes(model, inputs, samples) for model in (student, teacher))
    assert torch.equal(maps['student: predicted class'], own)
    assert torch.equal(maps['coach: predicted class'], wanted)
    assert torch.equal(maps['coach and student differ'], own != wanted)
    truth = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples])
    for name, classes in (('student', own), ('coach', wanted)):
        wrong = maps[f'{name}: wrong']
        assert not wrong[truth == 255].any() and (truth == 255).any()
        assert torch.equal(wrong[truth < 255], (classes != truth)[truth < 255]) and wrong.any()
    assert len(views) == 5


def test_teachers_with_pixels_and_padding_of_their_own(data):
    """The same network for other pixels says the same of each; what it pads is cut off."""
    inputs, samples = data
    student = segmentor(0)
    twice = [2 * value for value in STD]
    other = dict(mean=MEAN[::-1], std=twice[::-1], bgr_to_rgb=False)
    teacher = Teacher(segmentor(0, data_preprocessor=other), 'random')
    stem = teacher.model.backbone.stem[0].weight
    stem.copy_(2 * stem.flip(1))
    views = prediction_views(student, dict(teacher=teacher), inputs, samples)
    maps = {view.title: view.maps for view in views}
    assert not maps['teacher and student differ'].any()
    teacher.pixels.divisor = 64
    views = prediction_views(student, dict(teacher=teacher), inputs, samples)
    assert all(view.maps.shape == (2, *SIZE) for view in views)


def test_without_labels_and_beside_other_teachers(data):
    inputs, samples = data
    for sample in samples:
        del sample.gt_sem_seg
    teachers = dict(classifier=Teacher(nn.Sequential(nn.Conv2d(3, 3, 1)), 'random'))
    (view,) = prediction_views(segmentor(0), teachers, inputs, samples)
    assert view.title == 'student: predicted class'


class Panoptic(nn.Module):
    """As mmdet's: no ``encode_decode``; two queries claim the two halves of the picture."""

    def __init__(self, things=1, stuff=2):
        super().__init__()
        self.panoptic_head = nn.Module()
        self.panoptic_head.num_classes = things + stuff
        self.panoptic_head.num_stuff_classes = stuff
        self.panoptic_head.cls_embed = nn.Linear(2, things + stuff + 1)
        self.panoptic_head.mask_embed = nn.Identity()

    def forward(self, inputs, samples, mode):
        masks = torch.full((len(inputs), 2, 4, 8), 5.0)
        masks[:, 0, :, 4:] = masks[:, 1, :, :4] = -5
        classes = torch.tensor([[0.0, 9, 0, 0], [0, 0, 9, 0]]).expand(len(inputs), -1, -1)
        return [classes], [masks]


def test_masks_of_mmdet_become_classes_of_pixels():
    found = predicted_classes(Panoptic(), torch.zeros(2, 3, 32, 64), [])
    assert found.shape == (2, 32, 64)
    assert (found[..., :32] == 1).all() and (found[..., 32:] == 2).all()
    assert segments(Panoptic()) and not segments(Panoptic(3, 0)) and not segments(nn.Module())
