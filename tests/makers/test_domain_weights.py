"""DomainWeights: distances and weights of the sheet, and a file that Ensemble reads."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from mmkd.chain import Product, build_maker
from mmkd.makers.domain_weights import (
    frechet,
    jensen_shannon,
    moments,
    similarities,
)
from mmkd.teachers.means import read_weights
from mmkd.testing import tiny_classifier

TARGET = (np.zeros(2), np.ones(2))
SOURCES = dict(
    day=(np.array([0.5, 0.0]), np.array([1.0, 1.2])),
    night=(np.array([2.0, 1.0]), np.array([1.5, 1.0])),
    fog=(np.array([1.0, 0.0]), np.array([1.0, 1.0])),
)


def test_values_of_the_sheet():
    distances = {name: frechet(TARGET, source) for name, source in SOURCES.items()}
    assert list(distances.values()) == pytest.approx([0.29, 5.25, 1.0])
    wanted = dict(exp=(0.667264, 0.004679, 0.328056), inverse=(0.700554, 0.051068, 0.248378))
    for rule, weights in wanted.items():
        assert list(similarities(distances, rule).values()) == pytest.approx(weights, abs=1e-6)


def test_jensen_shannon_of_the_sheet():
    p, q = (0.7, 0.2, 0.1), (0.2, 0.3, 0.5)
    assert jensen_shannon(p, q) == pytest.approx(0.151358, abs=1e-6)
    assert jensen_shannon(q, p) == pytest.approx(jensen_shannon(p, q), abs=1e-15)
    assert jensen_shannon((1, 0), (0, 1)) == pytest.approx(np.log(2))
    assert jensen_shannon(p, [7, 2, 1]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize('rule', ['exp', 'inverse'])
def test_equal_distances_are_equal_weights(rule):
    for distance in (0.0, 3.0):
        found = similarities(dict(a=distance, b=distance, c=distance), rule)
        assert list(found.values()) == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert similarities(dict(alone=2.0), rule) == dict(alone=1.0)


def test_a_teacher_twice_has_half_the_weight_each():
    once = similarities(dict(a=1.0, b=1.0))
    twice = similarities(dict(a=1.0, b=1.0, again=1.0))
    assert twice['b'] + twice['again'] == pytest.approx(2 / 3) and once['b'] == 0.5


def test_moments_are_those_of_the_population():
    mean, deviation = moments(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert mean.tolist() == [2, 2] and deviation.tolist() == [1, 0]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Folders of dark, grey and bright images."""
    root, random = tmp_path_factory.mktemp('domains'), np.random.default_rng(0)
    for name, level in (('dark', 20), ('grey', 100), ('bright', 200), ('target', 30)):
        (root / name / 'inner').mkdir(parents=True)
        for i in range(4):
            noise = random.integers(0, 40, (12, 16, 3))
            image = Image.fromarray((level + noise).astype(np.uint8))
            image.save(root / name / ('inner' if i % 2 else '.') / f'{i}.png')
    return root


def made(work_dir, given=None, **options):
    torch.manual_seed(1)  # a random backbone need not order brightness; this one does
    maker = build_maker(dict(type='mmkd.DomainWeights', **options))
    return maker(given or {}, str(work_dir))


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp('backbone')
    path = folder / 'backbone.py'
    path.write_text(f'model = {tiny_classifier(4)!r}\n')
    return str(path)


def domains(pictures, *names):
    return {name: str(pictures / name) for name in names}


def test_the_nearest_domain_counts_most(pictures, backbone, tmp_path):
    product = made(
        tmp_path,
        domains=domains(pictures, 'bright', 'dark', 'grey'),
        target=str(pictures / 'target'),
        config=backbone,
        checkpoint='random',
        size=(16, 16),
    )
    weights = json.loads((tmp_path / 'weights.json').read_text())
    assert product.checkpoint == str(tmp_path / 'weights.json') and product.config == ''
    assert weights['dark'] > weights['grey'] > weights['bright']
    assert sum(weights.values()) == pytest.approx(1)
    assert read_weights(product.checkpoint, ['dark', 'grey', 'bright']) == pytest.approx(weights)
    further = json.loads((tmp_path / 'domains.json').read_text())
    assert further['distances']['dark'] < further['distances']['bright']


def test_the_stages_teacher_is_the_backbone(pictures, backbone, tmp_path):
    given = dict(teacher=Product(backbone, 'random', ''))
    options = dict(domains=domains(pictures, 'dark'), target=str(pictures / 'target'), size=8)
    product = made(tmp_path, given, **options)
    assert json.loads((tmp_path / 'weights.json').read_text()) == dict(dark=1.0)
    assert product.folder == str(tmp_path)
    with pytest.raises(ValueError, match='give config= and checkpoint='):
        made(tmp_path, **options)


def test_histograms(tmp_path):
    made(tmp_path, domains=dict(a=[0.2, 0.3, 0.5], b=[7, 2, 1]), target=[0.7, 0.2, 0.1])
    weights = json.loads((tmp_path / 'weights.json').read_text())
    near = 1 - 0.151358
    assert list(weights.values()) == pytest.approx([near / (1 + near), 1 / (1 + near)], abs=1e-6)


def test_almost_all_of_the_weight_is_reported(tmp_path, caplog, monkeypatch):
    from mmkd.makers import domain_weights

    said = []
    monkeypatch.setattr(domain_weights, 'print_log', lambda text, *rest: said.append((text, *rest)))
    made(tmp_path, domains=dict(a=[1, 0], b=[0.001, 1]), target=[1.0, 0.0])
    assert not [text for text, *rest in said if logging.WARNING in rest]
    monkeypatch.setattr(domain_weights, 'ALONE', 0.7)
    made(tmp_path, domains=dict(a=[1, 0], b=[0.001, 1]), target=[1.0, 0.0])
    assert [text for text, *rest in said if logging.WARNING in rest]


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(domains={}), ValueError, 'needs domains=dict'),
        (dict(domains=dict(target='x')), ValueError, "none of which is called 'target'"),
        (dict(domains=dict(a='nowhere')), FileNotFoundError, "config 'nowhere'"),
        (dict(images=1), ValueError, 'images must be a whole number of at least 2'),
        (dict(rule='log'), ValueError, 'rule must be one of'),
        (dict(size=(1, 2, 3)), ValueError, 'size must be a height and a width'),
        (dict(target=[1, 2], domains=dict(a=[1])), ValueError, 'must be a histogram of 2 counts'),
        (dict(target=[1, 2], domains=dict(a=['1', 2])), ValueError, "'a' must be a histogram"),
        (dict(target=None), ValueError, 'target must be a folder of images, .*found None'),
        (dict(target=[1, 2], domains=dict(a=[0, 0])), ValueError, "'a' must be a histogram"),
        (dict(target=[1, 2], domains=dict(a=[-1, 2])), ValueError, "'a' must be a histogram"),
    ],
)
def test_bad_input(options, error, message, pictures, backbone, tmp_path):
    whole = dict(
        domains=domains(pictures, 'dark'),
        target=str(pictures / 'target'),
        config=backbone,
        checkpoint='random',
        size=(8, 8),
    )
    with pytest.raises(error, match=message):
        made(tmp_path, **whole | options)


def test_too_few_images_and_features_that_are_not_finite(pictures, backbone, tmp_path, monkeypatch):
    from mmkd.makers import domain_weights

    (tmp_path / 'one').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'one' / '0.png')
    whole = dict(target=str(pictures / 'target'), config=backbone, checkpoint='random', size=8)
    with pytest.raises(ValueError, match="domain 'a' has 1 images"):
        made(tmp_path, domains=dict(a=str(tmp_path / 'one')), **whole)
    nan = torch.full((2, 3), float('nan'))
    monkeypatch.setattr(domain_weights, 'features_of', lambda *args: nan)
    with pytest.raises(ValueError, match="features of domain 'target' are not finite"):
        made(tmp_path, domains=domains(pictures, 'dark'), **whole)
