"""Heads that classify masks: how they are told, their layers, and SAN without its words."""

import pytest
import torch
from torch import nn

from mmkd.families import family_of, segmentor
from mmkd.families.mask_classes import (
    classifies_masks,
    knows_things_alone,
    mask_layers,
    words_left_out,
)
from mmkd.teacher import build_model
from mmkd.testing import tiny_mask2former, tiny_pspnet


def head(outputs=4, classes=3, **attributes):
    made = nn.Module()
    made.cls_embed, made.mask_embed = nn.Linear(2, outputs), nn.Identity()
    made.num_classes = classes
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_heads_that_classify_masks():
    assert classifies_masks(build_model(tiny_mask2former(4)).decode_head)
    assert classifies_masks(head()) and not classifies_masks(head(outputs=3))
    assert not classifies_masks(build_model(tiny_pspnet(4)).decode_head)
    assert classifies_masks(nn.ModuleDict(dict(side_adapter_network=nn.Identity())))
    assert knows_things_alone(head(num_stuff_classes=0))
    assert not knows_things_alone(head(num_stuff_classes=2)) and not knows_things_alone(head())


def test_mmdet_s_heads_are_segmentors_too():
    model = nn.Module()
    model.panoptic_head = head(num_stuff_classes=1)
    assert family_of(model) == 'segmentor'
    assert segmentor.decode_head(model) == (model.panoptic_head, 'panoptic_head')
    assert segmentor.logits_tap(model) == 'panoptic_head.forward()@scores'
    model.panoptic_head.num_stuff_classes = 0
    assert not segmentor.classifies_pixels(model)
    with pytest.raises(ValueError, match=r"name the tap .*@scores\(background=3\)'"):
        segmentor.logits_tap(model)
    model.panoptic_head = nn.Identity()
    with pytest.raises(ValueError, match='Identity gives neither class logits of pixels nor'):
        segmentor.logits_tap(model)


def test_layers_without_what_comes_before_the_first():
    x, y = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 6, 7).half()
    own = head(num_transformer_decoder_layers=2)
    for value in ((list(x), list(y)), (x, y), (y, x)):
        for net, count in ((own, 2), (head(), 3)):
            layers = mask_layers(net, value)
            assert len(layers) == count
            assert torch.equal(layers[-1][0], x[-1]) and layers[-1][1].dtype == torch.float32


class Text(nn.Module):
    def __init__(self, background):
        super().__init__()
        self.text_projection = nn.Parameter(torch.zeros(7, 5))
        if background:
            self.bg_embed = nn.Parameter(torch.ones(1, 5))

    def forward(self):
        raise AssertionError('which takes minutes')


@pytest.mark.parametrize('background', [False, True])
def test_words_are_not_read_for_shapes(background):
    model = nn.Module()
    model.text_encoder, model.decode_head = Text(background), head()
    with words_left_out(model):
        said = model.text_encoder()
    assert said.shape == (4, 5) and said.requires_grad == background
    with pytest.raises(AssertionError):
        model.text_encoder()
    with words_left_out(nn.Module()):
        pass
