"""LowRank: weights of the decomposition in a network that can be built and loaded."""

import pytest
import torch
from mmengine.config import Config
from network_toys import made, saved

from mmkd.config import load_config
from mmkd.testing import tiny_classifier

WIDE = dict(skip=['backbone.layer1'], most=1)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    config = Config(dict(default_scope='mmengine', model=tiny_classifier(8)))
    return saved(config, folder, 'plain')


def test_more_kernels_are_nearer_to_the_network(source, tmp_path):
    source, model = source
    x = torch.randn(2, 3, 16, 16)
    gaps = []
    for rank in (1, 3, 5):
        product, low = made('LowRank', source, tmp_path, rank=rank, **WIDE)
        with torch.no_grad():
            gaps.append(float((low(x, mode='tensor') - model(x, mode='tensor')).norm()))
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 1.5 * gaps[2]
    (edit,) = load_config(product.config).model.edits
    assert edit == dict(
        type='mmkd.DominantKernels', rank=5, only=['backbone'], skip=['backbone.layer1']
    )


def test_a_layer_that_loses_too_much(source, tmp_path):
    source, _ = source
    with pytest.raises(
        ValueError, match=r'LowRank: backbone.* would lose \d\d\.\d% of its weights'
    ):
        made('LowRank', source, tmp_path, rank=1)
    with pytest.raises(ValueError, match='would cost'):
        made('LowRank', source, tmp_path, rank=9)
    with pytest.raises(ValueError, match='most must be'):
        made('LowRank', source, tmp_path, rank=1, most=2)
