"""Specialists: groups of confused classes, and configs that train."""

import json

import pytest
import torch
from chain_toys import recipe, write, write_images

from mmkd.chain import Product, build_maker
from mmkd.config import load_config
from mmkd.makers.specialists import confusion_clusters

CLASSES = ('a', 'b', 'c', 'd')


def confused(*groups, count=400):
    """Predictions that are sure of a group and not of a class in it."""
    generator = torch.Generator().manual_seed(0)
    classes = sum(len(group) for group in groups)
    rows = []
    for i in range(count):
        group = groups[i % len(groups)]
        logits = torch.full((classes,), -6.0)
        logits[list(group)] = torch.rand(len(group), generator=generator)
        rows.append(logits.softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize('groups', [([0, 3], [1, 2]), ([0, 1, 2], [3, 4], [5, 6, 7])])
def test_classes_that_are_confused_are_in_one_group(groups):
    for seed in range(3):
        assert confusion_clusters(confused(*groups), len(groups), seed) == sorted(groups)


def test_groups_are_a_partition_and_do_not_depend_on_chance():
    p = torch.rand(50, 6, generator=torch.Generator().manual_seed(1)).softmax(1)
    state = torch.get_rng_state()
    found = confusion_clusters(p, 3, seed=4)
    assert sorted(i for group in found for i in group) == list(range(6))
    assert confusion_clusters(p, 3, seed=4) == found
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope='module')
def generalist(tmp_path_factory):
    """A classifier of four classes that has been trained for no step."""
    root = tmp_path_factory.mktemp('generalist')
    write_images(root / 'images', CLASSES)
    path = str(root / 'generalist.py')
    recipe(root / 'images', classes=CLASSES).dump(path)
    from mmkd.teacher import build_model

    torch.manual_seed(0)
    model = build_model(path)
    torch.save(dict(state_dict=model.state_dict()), root / 'weights.pth')
    return Product(path, str(root / 'weights.pth'), str(root))


def made(generalist, work_dir, **options):
    return build_maker(dict(type='mmkd.Specialists', **options))(
        dict(teacher=generalist), str(work_dir)
    )


def test_what_is_written(generalist, tmp_path):
    product = made(generalist, tmp_path, count=2)
    found = json.loads((tmp_path / 'specialists.json').read_text())
    assert product.checkpoint == str(tmp_path / 'specialists.json')
    assert sorted(c for one in found.values() for c in one['classes']) == list(CLASSES)
    for name, one in found.items():
        config = load_config(str(tmp_path / f'{name}.py'))
        count = len(one['classes'])
        assert config.model.num_classes == count + 1
        assert one['oversampling'] == pytest.approx((4 - count) / count)
        assert config.load_from == generalist.checkpoint


def test_a_written_config_trains_and_its_checkpoint_is_a_specialist(generalist, tmp_path):
    from mmkd.engine.launch import train
    from mmkd.teachers import Ensemble

    made(generalist, tmp_path, count=2)
    found = json.loads((tmp_path / 'specialists.json').read_text())
    members = dict(
        g=dict(config=generalist.config, checkpoint=generalist.checkpoint, classes=CLASSES)
    )
    for name in found:
        config = load_config(str(tmp_path / f'{name}.py'))
        config.train_cfg.max_epochs = 1
        train(config, work_dir=str(tmp_path / name))
        checkpoint = str(tmp_path / name / 'epoch_1.pth')
        members[name] = dict(config=str(tmp_path / f'{name}.py'), checkpoint=checkpoint)
    oversampling = {name: one['oversampling'] for name, one in found.items()}
    ensemble = Ensemble(
        members, mean='specialists', tau=4.0, generalist='g', oversampling=oversampling
    )
    subsets = [[CLASSES.index(c) for c in one['classes']] for one in found.values()]
    assert ensemble.experts.subsets == subsets


def test_bad_input(generalist, tmp_path, images):
    with pytest.raises(ValueError, match='count must be a whole number of at least 2'):
        made(generalist, tmp_path, count=1)
    with pytest.raises(ValueError, match='5 groups of 4 classes'):
        made(generalist, tmp_path, count=5)
    with pytest.raises(ValueError, match='needs a generalist'):
        build_maker(dict(type='mmkd.Specialists'))({}, str(tmp_path))
    student = write(tmp_path, images, student=dict(width=4, teacher=None))
    from mmkd.testing import tiny_pspnet

    path = tmp_path / 'segmentor.py'
    path.write_text(f'model = {tiny_pspnet(4)!r}\n')
    with pytest.raises(ValueError, match='needs an image classifier'):
        made(Product(str(path), 'random', ''), tmp_path)
    assert student


def test_one_group_of_all_classes(generalist, tmp_path, monkeypatch):
    from mmkd.makers import specialists

    monkeypatch.setattr(specialists, 'confusion_clusters', lambda *args: [[0, 1, 2, 3]])
    with pytest.raises(ValueError, match='all 4 classes are in one group'):
        made(generalist, tmp_path)


def test_a_group_without_images(generalist, tmp_path, monkeypatch):
    """It ended in a ZeroDivisionError."""
    from mmkd.makers import specialists

    real = specialists.predictions

    def without_b_and_d(*args):
        p, labels, names = real(*args)
        return p, labels // 2 * 2, names

    monkeypatch.setattr(specialists, 'predictions', without_b_and_d)
    monkeypatch.setattr(specialists, 'confusion_clusters', lambda *args: [[0, 2], [1, 3]])
    with pytest.raises(ValueError, match='no training image of the generalist is of b, d, which'):
        made(generalist, tmp_path)
