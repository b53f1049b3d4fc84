"""Inversion: images of a trained classifier, boxes of a detector, resuming, and bad input."""

import json

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmkd.chain import Product, build_maker
from mmkd.datasets import ImageFolder
from mmkd.makers.inverting import Inverter
from mmkd.teacher import build_model
from mmkd.testing import (
    tiny_classifier,
    tiny_mask_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)

NAMES = ['red', 'green', 'blue']


def colours(count):
    """Noise on images of three colours, (N, 3, 8, 8) BGR, and the class of each."""
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 3, 8, 8))
    images[torch.arange(count), 2 - labels] += 100
    return images, labels


def saved(folder, config, model, names=NAMES):
    Config(dict(model=config)).dump(folder / 'teacher.py')
    meta = dict(dataset_meta=dict(classes=names)) if names else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'teacher.pth')
    return Product(str(folder / 'teacher.py'), str(folder / 'teacher.pth'), '')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A classifier that was trained to tell the colours, with statistics of theirs."""
    torch.manual_seed(0)
    config = tiny_classifier(4)
    model = build_model(config).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        images, labels = colours(24)
        x = model.data_preprocessor(dict(inputs=images.to(torch.uint8)), True)['inputs']
        loss = torch.nn.functional.cross_entropy(model(x, mode='tensor'), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    return saved(tmp_path_factory.mktemp('teacher'), config, model)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    torch.manual_seed(0)
    config = tiny_retinanet(4)
    return saved(tmp_path_factory.mktemp('detector'), config, build_model(config))


def make(product, out, **options):
    options = dict(type='mmkd.Inversion', size=8, count=7, batch=4, steps=2) | options
    out.mkdir(exist_ok=True)
    return build_maker(options)(dict(teacher=product) if product else {}, str(out))


def test_images_are_classified_as_asked_and_have_the_statistics(teacher, tmp_path):
    out = tmp_path / 'a'
    product = make(teacher, out, count=12, batch=12, steps=60)
    scores = product.scores
    assert scores['agreement'] == 1 and scores['task_last'] < 0.3 * scores['task_first']
    assert scores['bn_last'] < 0.3 * scores['bn_first']
    entry = Config.fromfile(str(out / 'dataset.py')).inverted
    pipeline = [dict(type='mmcv.LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]
    dataset = DATASETS.build(dict(entry, pipeline=pipeline))
    assert dataset.metainfo['classes'] == tuple(NAMES)
    model = build_model(teacher.config).eval()
    model.load_state_dict(torch.load(teacher.checkpoint)['state_dict'])
    for sample in (dataset[i] for i in range(12)):
        batch = dict(inputs=sample['inputs'][None], data_samples=[sample['data_samples']])
        (said,) = model.test_step(batch)
        assert said.pred_label == sample['data_samples'].gt_label
    free = ImageFolder(manifest=product.checkpoint, pipeline=pipeline)
    assert len(free) == 12 and 'gt_label' not in free[0]['data_samples']
    assert json.loads((out / 'info.json').read_text())['terms'] == scores
    assert (out / 'check.png').is_file()


def test_it_goes_on_behind_the_last_batch(teacher, tmp_path, monkeypatch):
    whole = make(teacher, tmp_path / 'whole')
    real, done = Inverter.__call__, []

    def interrupted(self, *args):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(args)
        return real(self, *args)

    monkeypatch.setattr(Inverter, '__call__', interrupted)
    out = tmp_path / 'parts'
    with pytest.raises(KeyboardInterrupt):
        make(teacher, out)
    assert not (out / 'manifest.json').exists() and len([*out.glob('images/*/*')]) == 4
    monkeypatch.setattr(Inverter, '__call__', lambda *a: done.append(a) or real(*a))
    again = make(teacher, out)
    assert len(done) == 2, 'the first batch was done'
    assert again.scores == whole.scores
    files = [one['file'] for one in json.loads((out / 'manifest.json').read_text())['files']]
    assert [file.split('/')[1] for file in files] == [NAMES[i % 3] for i in range(7)]
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / 'whole' / file).read_bytes()
    with pytest.raises(ValueError, match='images of another teacher or with other options. Choose'):
        make(teacher, out, steps=3)
    make(teacher, out, steps=3, count=3, overwrite=True)
    assert len([*out.glob('images/*/*')]) == 3


def test_boxes_of_a_detector(detector, tmp_path):
    options = dict(size=[40, 64], count=3, batch=2, objects=2)
    product = make(detector, tmp_path / 'a', **options)
    content = json.loads(open(product.checkpoint).read())
    assert [one['name'] for one in content['categories']] == NAMES
    assert {a['image_id'] for a in content['annotations']} == {1, 2, 3}
    assert all(sum(a['image_id'] == i for a in content['annotations']) <= 2 for i in (1, 2, 3))
    for one in content['images']:
        path = tmp_path / 'a' / 'images' / one['file_name']
        assert cv2.imread(str(path)).shape == (40, 64, 3) and (one['width'], one['height']) == (
            64,
            40,
        )
    entry = Config.fromfile(str(tmp_path / 'a' / 'dataset.py')).inverted
    dataset = DATASETS.build(dict(entry, pipeline=[], filter_cfg=dict(filter_empty_gt=True)))
    assert len(dataset) == 3 and 'agreement' not in product.scores
    found = [i['bbox'] for i in dataset.get_data_info(0)['instances']]
    wanted = [a['bbox'] for a in content['annotations'] if a['image_id'] == 1]
    assert [[x, y, x + w, y + h] for x, y, w, h in wanted] == found


def test_options_change_what_is_made(detector, tmp_path):
    def layouts(name, **options):
        options = dict(size=[40, 64], count=3, batch=3, steps=1) | options
        product = make(detector, tmp_path / name, **options)
        return [a['bbox'] for a in json.loads(open(product.checkpoint).read())['annotations']]

    first = layouts('a')
    assert layouts('b', seed=1) != first and len(layouts('c', objects=1)) == 3
    assert all(w * h >= (0.8 * 40) ** 2 for *_, w, h in layouts('d', sides=[0.9, 0.9], objects=1))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(count=2), 'count=2 is less than the 3 classes'),
        (dict(count=0), 'count must be a whole number of at least 1'),
        (dict(lr=0), 'lr must be a finite number above 0'),
        (dict(factors=dict(kl=1)), 'a key of factors must be one of'),
        (dict(sides=[0.5, 0.2]), 'sides must be the least and the largest size'),
        (dict(classes=['a', 'b', 'a']), "but 'a' names several classes. Name the"),
        (dict(classes=['a/b', '..', 'c']), r"but 'a/b', '\.\.' cannot name a folder"),
        (dict(classes=['/a', 'b', 'c']), "a folder of its name, but '/a' cannot"),
        (dict(classes=['x']), '1 classes are named, but the teacher has 3'),
    ],
)
def test_bad_input(teacher, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make(teacher, tmp_path / 'a', **options)


def test_unsuitable_teachers(tmp_path):
    with pytest.raises(ValueError, match='Inversion needs a teacher'):
        make(None, tmp_path / 'a')
    for built in (tiny_pspnet(4), tiny_mask_rcnn(4)):
        with pytest.raises(
            ValueError, match='asks a classifier for classes or a detector for boxes'
        ):
            make(saved(tmp_path, built, build_model(built)), tmp_path / 'a')
    built = dict(type='mmkd.ToyNet', norm='GN')
    with pytest.raises(ValueError, match='has no BatchNorm whose statistics'):
        make(saved(tmp_path, built, build_model(built)), tmp_path / 'a')
    make(saved(tmp_path, built, build_model(built)), tmp_path / 'a', factors=dict(bn=0), count=3)
    built = tiny_classifier(4)
    nameless = saved(tmp_path, built, build_model(built), None)
    with pytest.raises(ValueError, match='does not name the classes of the teacher; give'):
        make(nameless, tmp_path / 'b')
    make(nameless, tmp_path / 'b', classes=NAMES, count=3, steps=1)
