"""Bake: quantised after training, in the plain model's weights."""

import pytest
import torch

from mmkd.chain import Product, build_maker
from mmkd.config import load_config
from mmkd.edits import apply_edits
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import tiny_classifier

QUANTISED = dict(type='mmkd.FakeQuant', bits=3)


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'plain.py').write_text(f'model = {tiny_classifier(4)!r}\n')
    torch.manual_seed(0)
    state = build_model(tiny_classifier(4)).state_dict()
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'plain.pth')
    return Product(str(tmp_path / 'plain.py'), str(tmp_path / 'plain.pth'), '')


def made(work_dir, source, edits):
    return build_maker(dict(type='mmkd.Bake', edits=edits))(dict(student=source), str(work_dir))


@pytest.mark.parametrize('edit', [QUANTISED, dict(QUANTISED, form='lsq')], ids=['fixed', 'lsq'])
def test_the_plain_network_computes_as_the_edited_one(source, tmp_path, edit):
    product = made(tmp_path, source, edit)
    config = load_config(product.config)
    assert config.model == load_config(source.config).model
    baked, edited = build_model(config), build_model(source.config)
    load_strictly(baked, product.checkpoint)
    load_strictly(edited, source.checkpoint)
    apply_edits(edited, [edit])
    for module in edited.modules():
        if hasattr(module, 'learned'):
            module.begin()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(baked.eval()(x), edited.eval()(x))
    assert not torch.equal(baked(x), build_model(source.config).eval()(x))


def test_bits_of_float_change_nothing(source, tmp_path):
    product = made(tmp_path, source, [dict(QUANTISED, bits=32)])
    states = [torch.load(one.checkpoint)['state_dict'] for one in (source, product)]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_what_is_more_than_weights_is_refused():
    with pytest.raises(ValueError, match='Bake writes weights, but FakeQuant does more'):
        build_maker(dict(type='mmkd.Bake', edits=[dict(QUANTISED, acts=8)]))
    with pytest.raises(ValueError, match='Bake: edits must be a list'):
        build_maker(dict(type='mmkd.Bake', edits='FakeQuant'))
