"""LayerPairs: the nearest layers of a teacher, and the file that InformationFlow reads."""

import json

import pytest
import torch
from chain_toys import recipe

from mmkd.chain import Product, build_maker
from mmkd.makers.layer_pairs import nearest_layers
from mmkd.methods.information_flow import InformationFlow
from mmkd.testing import tiny_classifier


def test_the_nearest_layer_of_each_and_the_last_of_both():
    divergence = torch.tensor([[3.0, 1, 2, 0], [1.0, 4, 0.5, 0], [0.0, 0, 0, 9]])
    assert nearest_layers(divergence) == [(0, 1), (1, 2), (2, 3)]
    assert nearest_layers(torch.tensor([[2.0]])) == [(0, 0)]
    assert nearest_layers(torch.tensor([[1.0], [2.0]])) == [(1, 0)]


@pytest.fixture
def config(images, tmp_path):
    (tmp_path / 'teacher.py').write_text(f'model = {tiny_classifier(4)!r}\n')
    teacher = dict(config=str(tmp_path / 'teacher.py'), checkpoint='random')
    flow = dict(flow=dict(type='mmkd.InformationFlow', gather=False))
    path = tmp_path / 'flow.py'
    recipe(images, teacher=teacher, objectives=flow).dump(path)
    return str(path)


def made(work_dir, config, given=(), **options):
    maker = build_maker(dict(type='mmkd.LayerPairs', config=config, images=8, **options))
    return maker(dict(given), str(work_dir))


def test_equal_networks_pair_by_position(config, tmp_path):
    """A student with its teacher's weights is nearest to it layer by layer."""
    from mmkd.teacher import build_model

    torch.manual_seed(0)
    model = build_model(tiny_classifier(4))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'same.pth')
    same = Product(str(tmp_path / 'teacher.py'), str(tmp_path / 'same.pth'), '')
    product = made(tmp_path, config, dict(teacher=same, student=same))
    found = json.loads((tmp_path / 'pairs.json').read_text())
    assert found['pairs'] == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert product.checkpoint == str(tmp_path / 'pairs.json')
    assert len(found['divergence']) == len(found['student']) == len(found['teacher']) == 4
    assert InformationFlow(pairs=product.checkpoint).pairs == [(i, i) for i in range(4)]


def test_networks_of_unequal_depth(config, tmp_path):
    deep = tmp_path / 'deep.py'
    deep.write_text(f'model = {tiny_classifier(4, kind="vgg")!r}\n')
    torch.manual_seed(0)
    made(tmp_path, config, dict(teacher=Product(str(deep), 'random', '')))
    found = json.loads((tmp_path / 'pairs.json').read_text())
    assert [len(row) for row in found['divergence']] == [5] * 4 and found['pairs'][-1] == [3, 4]


def test_bad_input(config, images, tmp_path):
    with pytest.raises(ValueError, match='images must be'):
        build_maker(dict(type='mmkd.LayerPairs', config=config, images=1))
    with pytest.raises(ValueError, match="has flow among its objectives, and objective='other'"):
        made(tmp_path, config, objective='other')
    path = tmp_path / 'kd.py'
    recipe(images, teacher=dict(config=str(tmp_path / 'teacher.py'), checkpoint='random')).dump(
        path
    )
    with pytest.raises(ValueError, match='has no InformationFlow among its objectives'):
        made(tmp_path, str(path))
