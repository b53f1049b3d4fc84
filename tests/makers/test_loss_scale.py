"""LossScale: the weight at which a term is as large as the task loss."""

import json

import pytest
from chain_toys import recipe

from mmkd.chain import build_maker
from mmkd.testing import tiny_classifier


@pytest.fixture
def config(images, tmp_path):
    (tmp_path / 'teacher.py').write_text(f'model = {tiny_classifier(8)!r}\n')
    teacher = dict(config=str(tmp_path / 'teacher.py'), checkpoint='random')

    def write(**objectives):
        path = tmp_path / 'run.py'
        entries = objectives or dict(l2=dict(type='mmkd.L2Logit', weight=7.0))
        recipe(images, teacher=teacher, objectives=entries).dump(path)
        return str(path)

    return write


def made(work_dir, config, **options):
    maker = build_maker(dict(type='mmkd.LossScale', config=config, **options))
    product = maker({}, str(work_dir))
    return json.loads((work_dir / 'scale.json').read_text()), product


def test_the_scale_and_the_four_weights(config, tmp_path):
    found, product = made(tmp_path, config(), steps=4)
    assert product.checkpoint == str(tmp_path / 'scale.json')
    assert found['steps'] == 4 and found['objective'] == 'l2'
    assert found['scale'] == pytest.approx(found['task'] / found['term'])
    ratios = {k: v / found['scale'] for k, v in found['weights'].items()}
    assert ratios == pytest.approx({'1:1': 1, '1:2': 2, '2:1': 0.5, '3:1': 1 / 3})


def test_objectives_are_named(config, tmp_path):
    entry = dict(type='mmkd.L2Logit')
    with pytest.raises(ValueError, match='has the objectives a, b, and objective=None'):
        made(tmp_path, config(a=entry, b=dict(entry)))
    with pytest.raises(ValueError, match="objective='x'"):
        made(tmp_path, config(a=entry), objective='x')


def test_losses_that_are_not_above_zero(config, tmp_path):
    with pytest.raises(ValueError, match='task loss is 0 .* a ratio needs two losses above 0'):
        made(tmp_path, config(), options={'model.task_weight': 0.0}, steps=2)


def test_options(config):
    with pytest.raises(ValueError, match='steps must be'):
        build_maker(dict(type='mmkd.LossScale', config=config(), steps=0))
