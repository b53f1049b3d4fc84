"""ShuffleNets for 32 x 32 pixels, against the sizes of the literature."""

import copy

import pytest
import torch
from backbone_checks import check_shapes

from mmkd.families import classifier
from mmkd.models.shuffle_net import CifarShuffleNet, CifarShuffleNetV2, shuffle
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier

V1, V2 = dict(type='mmkd.CifarShuffleNet'), dict(type='mmkd.CifarShuffleNetV2')


@pytest.mark.parametrize(('backbone', 'width', 'size'), [(V1, 960, 949258), (V2, 1024, 1355528)])
def test_sizes_are_those_of_the_benchmarks(backbone, width, size):
    """Of 100 classes, with the linear layer."""
    with torch.device('meta'):
        parameters = build_model(copy.deepcopy(backbone)).parameters()
    assert sum(p.numel() for p in parameters) + 100 * (width + 1) == size


def test_widths_and_sizes_of_the_stages():
    check_shapes(dict(V1, base_channels=48), [(48, 16), (96, 8), (192, 4)])
    check_shapes(dict(V2, widen_factor=0.5), [(48, 16), (96, 8), (1024, 4)])


def test_channels_of_all_groups_by_turns():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(shuffle(shuffle(x, 2), 3), x)


@pytest.mark.parametrize('backbone', [dict(V1, base_channels=48), dict(V2, widen_factor=0.5)])
def test_stages_are_found(backbone):
    config = tiny_classifier()
    config['backbone'] = backbone
    model = build_model(config).eval()
    taps = parse_taps([classifier.stem_tap(model), *classifier.stage_taps(model)])
    inputs = torch.randn(2, 3, 32, 32)
    with Recorder(model, taps).record(inputs) as side:
        assert model(inputs).shape == (2, 3)
    assert [side[tap][0].shape[2] for tap in taps] == [32, 16, 8, 4]


def test_values_before_the_last_activation():
    model = CifarShuffleNet(48)
    assert len(model.preacts) == 3 and not hasattr(CifarShuffleNetV2(0.5), 'preacts')


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (CifarShuffleNet, dict(base_channels=50), 'must divide base_channels'),
        (CifarShuffleNet, dict(base_channels=24), 'base_channels'),
        (CifarShuffleNetV2, dict(widen_factor=3), 'widen_factor'),
    ],
)
def test_what_does_not_exist_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
