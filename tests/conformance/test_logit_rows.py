"""Losses on rows of logits: pixels are rows like images, and unfit networks are refused."""

import pytest
import torch
from logit_toys import images
from segmentation_toys import ToyClassifier, ToySegmentor, prepare

from mmkd.methods.confidence_penalty import ConfidencePenalty
from mmkd.methods.eskd import ESKD
from mmkd.methods.l2_logit import L2Logit
from mmkd.methods.logit_standardization import LogitStandardization
from mmkd.methods.lsr import LSR
from mmkd.methods.noisy_teacher import NoisyTeacher
from mmkd.methods.prdkd import PRDKD
from mmkd.methods.wsld import WSLD
from mmkd.teacher import build_model
from mmkd.testing import label_maps, make_trace, tiny_faster_rcnn, tiny_retinanet

LOSSES = (ESKD, L2Logit, LogitStandardization, NoisyTeacher, PRDKD, WSLD)


@pytest.mark.parametrize('cls', [*LOSSES, LSR, ConfidencePenalty], ids=lambda c: c.__name__)
def test_pixels_are_rows_and_those_without_label_are_left_out(cls):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    maps = torch.randint(0, 3, (2, 8, 10))
    maps[0, :4] = 255
    objective = cls()
    prepare(objective, ToySegmentor(), ToySegmentor())
    sides = [{'decode_head.conv_seg': z} for z in (student, teacher)]
    found = objective(
        make_trace(sides[0], sides[1] if cls.needs_teacher else None, samples=label_maps(maps))
    )
    labels = maps[:, ::2, ::2]
    keep = labels != 255
    wanted = images(cls(), *(z.permute(0, 2, 3, 1)[keep] for z in (student, teacher)), labels[keep])
    assert 0 < int(keep.sum()) < keep.numel()
    for key, value in wanted.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-6), key


@pytest.mark.parametrize('cls', LOSSES, ids=lambda c: c.__name__)
def test_what_is_refused(cls):
    with pytest.raises(ValueError, match='class counts.* 3 .* 4'):
        cls().bind(ToyClassifier(3), ToyClassifier(4))
    with pytest.raises(ValueError, match='a softmax over one class is always 1'):
        cls().bind(ToyClassifier(1), ToyClassifier(1))
    with pytest.raises(ValueError, match='RoIs, pixels or images'):
        cls().bind(ToyClassifier(3), ToySegmentor())
    with pytest.raises(ValueError, match='RoIs, pixels or images.*RetinaHead'):
        cls().bind(*(build_model(tiny_retinanet(width=4)) for _ in range(2)))
    with pytest.raises(ValueError, match='takes no taps'):
        cls(student='neck').bind(*(build_model(tiny_faster_rcnn(width=4)) for _ in range(2)))
