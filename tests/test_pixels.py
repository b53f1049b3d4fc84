"""How a model wants its pixels, and the batch of one as another wants it."""

import pytest
import torch
from plan_toys import distil, step
from torch import nn

from mmkd.pixels import Pixels
from mmkd.teacher import build_model
from mmkd.testing import segmentation_batch, tiny_pspnet


def with_channels(model, count, mean=None):
    model = dict(model, backbone=dict(model['backbone'], in_channels=count))
    own = dict(mean=mean, std=None if mean is None else [2.0] * len(mean), bgr_to_rgb=False)
    return dict(model, data_preprocessor=dict(model['data_preprocessor'], **own))


def test_four_bands_on_both_sides():
    networks = [with_channels(tiny_pspnet(w), 4) for w in (4, 8)]
    inputs, samples = segmentation_batch()
    found = distil(*networks)
    assert found.pixels.channels == 4 and '4 channels, mean [0.0, 0.0' in str(found.plan)
    losses = step(found, (torch.cat((inputs, inputs[:, :1]), 1), samples))
    assert losses['kd.x.loss'].isfinite()


def test_a_grey_student_shows_its_teacher_three_equal_channels():
    grey = with_channels(tiny_pspnet(4), 1, [100.0])
    found = distil(grey, tiny_pspnet(8))
    inputs, samples = segmentation_batch()
    seen = found.teachers['teacher'].pixels.translate(inputs[:, :1], samples, found.pixels)
    mean, std = (Pixels.of(found.teachers['teacher'].model).__dict__[k] for k in ('mean', 'std'))
    raw = seen * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)
    torch.testing.assert_close(raw, (inputs[:, :1] * 2 + 100).expand(-1, 3, -1, -1))
    assert step(found, (inputs[:, :1].contiguous(), samples))['kd.x.loss'].isfinite()


def test_other_channels_are_refused():
    four = with_channels(tiny_pspnet(4), 4)
    message = "teacher 'teacher' takes images of 3 channels and the student of 4.*Only grey"
    with pytest.raises(ValueError, match=message):
        distil(four, tiny_pspnet(4))
    assert Pixels.of(build_model(four)).channels == 4


def test_the_first_convolution_says_how_many_channels_there_are():
    one_mean = with_channels(tiny_pspnet(4), 3, [127.5])  # a single mean for three channels
    assert Pixels.of(build_model(one_mean)).mean.tolist() == [127.5] * 3
    yolox = dict(type='mmdet.CSPDarknet', deepen_factor=0.33, widen_factor=0.125)
    model = nn.Module()
    model.backbone = build_model(yolox)
    assert Pixels.of(model).channels == 3
