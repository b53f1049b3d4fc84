"""QuantisedMap: the step on images, and the network that the next stages start from."""

import pytest
import torch
from chain_toys import recipe, run

from mmkd.adapters.quantised_output import quantised_places
from mmkd.chain import Product, build_maker
from mmkd.config import load_config
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import tiny_classifier


@pytest.fixture
def source(images, tmp_path):
    config = recipe(images)
    config.train_dataloader.dataset.pipeline.pop(1)  # the flip
    config.dump(tmp_path / 'plain.py')
    torch.manual_seed(0)
    model = build_model(tiny_classifier(4))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'plain.pth')
    return Product(str(tmp_path / 'plain.py'), str(tmp_path / 'plain.pth'), '')


def made(work_dir, source, at='backbone.layer3', **options):
    maker = build_maker(dict(type='mmkd.QuantisedMap', at=at, **options))
    return maker(dict(teacher=source) if source else {}, str(work_dir))


def test_the_network_with_its_step(source, tmp_path):
    product = made(tmp_path, source, images=8)
    config = load_config(product.config)
    model = build_model(config)
    load_strictly(model, product.checkpoint)
    ((place, (step, signed, levels)),) = quantised_places(model).items()
    assert (place, signed, levels) == ('backbone.layer3', False, None) and step > 0
    found = model.backbone(torch.randn(2, 3, 8, 8))[2] / step
    assert (found - found.round()).abs().max() < 1e-3 and found.max() > 4
    again = made(tmp_path, source, images=8)
    assert load_config(again.config).model.edits[0].step == step  # the same images


def test_given_steps_and_signs(source, tmp_path, log):
    product = made(tmp_path, source, step=0.25, levels=16)
    edit = load_config(product.config).model.edits[0]
    assert (edit.step, edit.signed, edit.levels) == (0.25, False, 16)
    product = made(tmp_path, source, at='backbone.layer3.0.bn2')
    assert load_config(product.config).model.edits[0].signed  # it has negative values
    made(tmp_path, source, at='backbone.layer3.0.bn2', signed=False)
    assert 'are negative and are lost with signed=False' in log.text


def test_bad_input(source, tmp_path):
    with pytest.raises(ValueError, match='needs one network'):
        made(tmp_path, None)
    with pytest.raises(ValueError, match='step 1e.06 at .*, 100.0% of the values become 0'):
        made(tmp_path, source, step=1e6)
    with pytest.raises(ValueError, match='images must be a whole number'):
        made(tmp_path, source, images=0)
    with torch.no_grad():
        state = torch.load(source.checkpoint)
        state['state_dict']['backbone.layer3.0.bn2.weight'].zero_()
        state['state_dict']['backbone.layer3.0.downsample.1.weight'].zero_()
        torch.save(state, source.checkpoint)
    with pytest.raises(ValueError, match='are 0, which gives no step'):
        made(tmp_path, source)


def test_a_chain_keeps_the_step(images, tmp_path):
    """Tuned from the rounded teacher, whose step its student's teacher has, too."""
    files = {}
    for name, options in dict(
        plain=dict(width=4), student=dict(width=4, teacher=dict(config='', checkpoint='random'))
    ).items():
        files[name] = str(tmp_path / f'{name}.py')
        recipe(images, **options).dump(files[name])
    stages = dict(
        teacher=dict(config=files['plain']),
        rounded=dict(make=dict(type='mmkd.QuantisedMap', at='backbone.layer3'), teacher='teacher'),
        tuned=dict(config=files['plain'], student='rounded'),
        student=dict(config=files['student'], teacher='tuned'),
    )
    _, products = run(stages, tmp_path / 'work')
    step = load_config(str(tmp_path / 'work/rounded/quantised.py')).model.edits[0].step
    used = load_config(products['student'].config).model.teacher.config.model
    assert used.edits[0].step == step
