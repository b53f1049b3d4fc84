"""TrustedImages: the difference of two cosines, and the file of the clearest images."""

import json

import pytest
import torch
from chain_toys import write

from mmkd.chain import Product, build_maker
from mmkd.makers import trusted_images
from mmkd.makers.trusted_images import cluster_difference, trusted
from mmkd.testing import tiny_classifier, tiny_pspnet


def test_values_of_the_sheet():
    axes = torch.eye(2)
    found = cluster_difference(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), axes)
    torch.testing.assert_close(found, torch.tensor([0.447214, 0.0]), atol=1e-6, rtol=0)
    third = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(cluster_difference(torch.tensor([[2.0, 1.0]]), third), found[:1])


def test_the_clearest_of_each_pseudo_class():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.9], [1.0, 0.5], [0.0, 1.0], [0.8, 1.0]])
    labels = torch.tensor([0, 0, 0, 4, 4])
    assert trusted(features, labels, 0.1) == [0, 3]
    assert trusted(features, labels, 0.67) == [0, 2, 3]
    assert trusted(features, labels, 1.0) == [0, 1, 2, 3, 4]


def made(work_dir, config, **options):
    given = dict(teacher=Product(config, 'random', '')) if config else {}
    return build_maker(dict(type='mmkd.TrustedImages', size=8, **options))(given, str(work_dir))


@pytest.fixture
def teacher(tmp_path):
    (tmp_path / 'teacher.py').write_text(f'model = {tiny_classifier(4)!r}\n')
    return str(tmp_path / 'teacher.py')


def test_the_file(images, teacher, tmp_path):
    target = write(tmp_path, images, plain=dict(width=4))['plain']
    torch.manual_seed(3)
    product = made(tmp_path, teacher, target=target, share=1.0)
    found = json.loads((tmp_path / 'trusted.json').read_text())
    assert product.checkpoint == str(tmp_path / 'trusted.json')
    assert len(found['images']) == found['of'] == 12 and found['share'] == 1


def test_bad_input(images, teacher, tmp_path, monkeypatch):
    folder = str(images / 'train')
    with pytest.raises(ValueError, match='share must be a finite number above 0 and at most 1'):
        made(tmp_path, teacher, target=folder, share=0)
    with pytest.raises(ValueError, match='needs a teacher'):
        made(tmp_path, None, target=folder)
    (tmp_path / 'segmentor.py').write_text(f'model = {tiny_pspnet(4)!r}\n')
    with pytest.raises(ValueError, match='needs an image classifier'):
        made(tmp_path, str(tmp_path / 'segmentor.py'), target=folder)
    features = torch.ones(12, 16)
    monkeypatch.setattr(
        trusted_images, 'features_of', lambda teacher, *rest: wide(teacher, features)
    )
    with pytest.raises(ValueError, match='sees 1 class in 12 images'):
        made(tmp_path, teacher, target=folder)
    features[:] = float('nan')
    with pytest.raises(ValueError, match='are not finite'):
        made(tmp_path, teacher, target=folder)


def wide(teacher, features):
    """Equal rows as wide as the head takes."""
    return features[:, :1].expand(-1, teacher.model.head.fc.in_features)
