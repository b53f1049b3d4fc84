"""What differs between model families, asked of real models."""

import pytest
import torch

from mmkd.families import family_of
from mmkd.teacher import build_model
from mmkd.testing import ToyNet, tiny_detr, tiny_faster_rcnn, tiny_fcos, tiny_pspnet, tiny_retinanet


@pytest.mark.parametrize(
    ('make', 'family'),
    [
        (lambda: build_model(tiny_faster_rcnn(4)), 'two_stage'),
        (lambda: build_model(tiny_retinanet(4)), 'anchor'),
        (lambda: build_model(tiny_fcos(4)), 'anchor_free'),
        (lambda: build_model(tiny_detr(4)), 'detr'),
        (lambda: build_model(tiny_pspnet(4)), 'segmentor'),
        (ToyNet, 'classifier'),
        (lambda: torch.nn.Identity(), 'other'),
    ],
)
def test_families_are_told_by_parts(make, family):
    assert family_of(make()) == family
