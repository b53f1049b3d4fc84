"""Groups of channels: their numbers for known networks, and layers that cannot be followed."""

import pytest
import torch
from torch import nn

from mmkd.edits import Widths
from mmkd.makers.channel_groups import graph_groups, inner_groups
from mmkd.makers.chosen_channels import chosen_state, strongest
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_fcos, tiny_pspnet

DEPTHS = {18: [16, 32, 64, 128], 50: [64, 128, 256, 512]}


def detector(depth):
    torch.manual_seed(0)
    changes = dict(
        backbone=dict(depth=depth),
        neck=dict(in_channels=DEPTHS[depth], out_channels=16),
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16)),
    )
    return build_model(tiny_faster_rcnn(16, **changes)).eval()


def halved(model, groups):
    """Parameters of backbone and neck with half the channels of some groups."""
    state, _ = chosen_state(model, [(g, strongest(g, model, g.size // 2)) for g in groups])
    names = [n for n, _ in model.named_parameters() if n.startswith(('backbone.', 'neck.'))]
    return sum(state[name].numel() for name in names)


@pytest.mark.parametrize(
    'depth, groups, whole, half, inner, neck',
    [
        (18, (12, 17), 715_280, 187_976, 371_504, 180_040),
        (50, (37, 42), 1_505_680, 391_176, 680_816, 380_360),
    ],
)
def test_groups_of_a_detector(depth, groups, whole, half, inner, neck):
    model = detector(depth)
    found = graph_groups(model, 'test')
    body = [g for g in found if all(x.startswith('backbone.') for x in g.givers())]
    assert (len(body), len(found)) == groups
    assert halved(model, []) == whole
    assert halved(model, body) == half
    assert halved(model, inner_groups(model)) == inner
    fixed = {g.name for g in found if g.fixed}
    assert fixed == {'neck.fpn_convs.0.conv', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg'}
    # With the outputs of the FPN, which the head of RoIs would not accept.
    assert (
        halved(model, [g for g in found if g.name not in fixed - {'neck.fpn_convs.0.conv'}]) == neck
    )


def test_frozen_layers_are_in_the_graph():
    """Also those that a backbone freezes again whenever it is put into a mode."""
    torch.manual_seed(0)
    model = build_model(tiny_faster_rcnn(8, backbone=dict(frozen_stages=1, norm_eval=True))).eval()
    model.neck.requires_grad_(False)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert 'backbone.layer1.0.conv1.weight' in frozen
    assert len(graph_groups(model, 'test')) == 17
    assert frozen == {name for name, p in model.named_parameters() if not p.requires_grad}


def test_concatenated_maps_are_followed():
    torch.manual_seed(0)
    model = build_model(tiny_pspnet(8)).eval()
    groups = [g for g in graph_groups(model, 'test') if not g.fixed]
    state, sizes = chosen_state(model, [(g, [*range(g.size // 2)]) for g in groups])
    out, inner = sizes['decode_head.bottleneck.conv']
    conv = model.decode_head.bottleneck.conv
    assert (out, inner) == (conv.out_channels // 2, conv.in_channels // 2)
    assert state['decode_head.bottleneck.conv.weight'].shape == (out, inner, 3, 3)
    assert sizes['decode_head.conv_seg'] == [model.decode_head.conv_seg.out_channels, out]


def test_heads_shared_by_levels_and_norms_of_groups():
    model = build_model(tiny_fcos(4, norm='GN')).eval()
    groups = graph_groups(model, 'test')
    assert all('divides them into groups' in g.fixed for g in groups if 'backbone' in g.name)


def test_unknown_layers_are_refused():
    model = build_model(tiny_classifier(4))
    model.backbone.conv1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4))
    with pytest.raises(ValueError, match=r'PReLU.*cannot be followed.*inner'):
        graph_groups(model, 'test')
    with pytest.raises(ValueError, match='no residual block'):
        inner_groups(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_torch_pruning_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torch_pruning', None)
    with pytest.raises(ImportError, match=r'mmkd\[prune\]'):
        graph_groups(build_model(tiny_classifier(4)), 'test')


def test_the_norm_behind_a_convolution_is_found_by_what_it_reads():
    """In a block that begins with its norm, bn1 reads what comes in and bn2 what conv1 gives."""
    torch.manual_seed(0)
    model = build_model(tiny_classifier(4, kind='wrn')).eval()
    groups = inner_groups(model)
    assert len(groups) == 3
    for group in groups:
        conv, norm, reader = (one.name.rpartition('.')[2] for one in group.members)
        assert (conv, norm, reader) == ('conv1', 'bn2', 'conv2')
    state, sizes = chosen_state(model, [(g, strongest(g, model, g.size // 2)) for g in groups])
    assert sizes['backbone.layer2.0.bn2'] == [4] and 'backbone.layer2.0.bn1' not in sizes
    narrow = Widths(sizes)(model)
    narrow.load_state_dict(state)
