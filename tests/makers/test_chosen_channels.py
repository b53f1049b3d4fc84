"""Chosen channels: how much each counts, the weights that stay, and their cost."""

import torch
from torch import nn

from mmkd.edits import Widths
from mmkd.makers.channel_groups import IN, NORM, OUT, Group, Member, graph_groups
from mmkd.makers.chosen_channels import chosen_state, importance, products, strongest, uses_of
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn


def one_by_one(*rows):
    """A 1 x 1 convolution whose channels have these L1 norms."""
    conv = nn.Conv2d(1, len(rows), 1, bias=False)
    conv.weight.data[:, 0, 0, 0] = torch.tensor(rows).float()
    return conv


def test_importance_counts_all_givers_equally():
    model = nn.Sequential(one_by_one(3, 1, 2), one_by_one(1, -4, 1))
    group = Group(3, [Member('0', OUT, [0, 1, 2]), Member('1', OUT, [0, 1, 2])])
    assert importance(group, model).tolist() == [1, 1.25, 0.75]
    assert strongest(group, model, 2) == [0, 1]
    assert strongest(Group(3, group.members[:1]), model, 2) == [0, 2]
    ties = nn.Sequential(one_by_one(4, 1, 4, 1))
    assert strongest(Group(4, [Member('0', OUT, [0, 1, 2, 3])]), ties, 2) == [0, 2]
    assert strongest(Group(4, [Member('0', OUT, [0, 1, 2, 3])]), ties, 3) == [0, 1, 2]


def test_channels_that_are_taken_twice_share_what_reads_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)).double().eval()
    group = Group(2, [Member('0', OUT, [0, 1]), Member('1', NORM, [0, 1]), Member('2', IN, [0, 1])])
    state, sizes = chosen_state(model, [(group, [0, 1, 1])], divide=True)
    assert sizes == {'0': [3, 3], '1': [3], '2': [3, 3]}
    wide = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).double().eval()
    wide.load_state_dict(state)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert (wide(x) - model(x)).abs().max() < 1e-15
    with torch.no_grad():
        assert (wide.train()(x) - model.train()(x)).abs().max() < 2e-15


def test_products_are_those_of_the_smaller_network():
    torch.manual_seed(0)
    model = build_model(tiny_faster_rcnn(8)).eval()
    uses = uses_of(model)
    groups = [g for g in graph_groups(model, 'test') if not g.fixed]
    counts = [(g, g.size // 2) for g in groups]
    _, sizes = chosen_state(model, [(g, [*range(n)]) for g, n in counts])
    expected = products(model, uses, counts)
    Widths(sizes)(model)
    assert products(model, uses) == expected
