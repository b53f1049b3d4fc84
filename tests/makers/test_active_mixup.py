"""ActiveMixup: whom it asks, about what, how often, and that nothing is asked twice."""

import json

import numpy as np
import pytest
import torch
from black_box_toys import brightness
from chain_toys import equal, run, weights, write
from mmengine.config import Config
from PIL import Image

from mmkd.chain import Chain, Product, build_maker
from mmkd.makers.active_mixup import Confidence
from mmkd.makers.mixtures import SHARES, mixed
from mmkd.makers.pool import Pool
from mmkd.makers.queries import ALONE, BATCH
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_pspnet

CALLS = []


def counted(images):
    """Probabilities of three classes; remembers how many images it saw."""
    CALLS.append(len(images))
    return brightness(images)


@pytest.fixture
def ask(paths):
    CALLS.clear()
    box = dict(type='mmkd.Function', call=counted)
    return dict(type='mmkd.ActiveMixup', config=paths['plain'], seeds=6, add=5, black_box=box)


@pytest.fixture
def student(paths, tmp_path):
    torch.manual_seed(1)
    model = build_model(Config.fromfile(paths['plain']))
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'student.pth')
    return dict(student=Product(paths['plain'], str(tmp_path / 'student.pth'), ''))


def made(entry, folder, given={}, **options):  # noqa: B006
    folder.mkdir(exist_ok=True)
    product = build_maker(dict(entry, **options))(given, str(folder))
    with np.load(product.checkpoint) as held:
        return product.checkpoint, dict(held)


def test_rounds(ask, student, tmp_path):
    file, first = made(ask, tmp_path / '0')
    assert CALLS == [6] and len({*first['first']}) == 6 and (first['second'] == ALONE).all()
    file, held = made(ask, tmp_path / '1', student, asked=file)
    assert CALLS == [6, 5], 'each image is asked once'
    pairs = {frozenset(pair) for pair in zip(held['first'][6:], held['second'][6:], strict=True)}
    assert len(pairs) == 5 and all(pair <= {*first['first']} for pair in pairs)
    assert {round(float(s), 2) for s in held['share'][6:]} <= {*SHARES}
    file, last = made(ask, tmp_path / '2', student, asked=file)
    every = [frozenset(p) for p in zip(last['first'][6:], last['second'][6:], strict=True)]
    assert len(every) == 10 == len({*every}), 'no pair is asked twice'
    np.testing.assert_array_equal(last['scores'][:11], held['scores'])
    assert list(last['classes']) == ['a', 'b', 'c']
    for key, row in zip(last['keys'], last['scores'], strict=True):
        image = np.array(Image.open(tmp_path / '2' / key))
        np.testing.assert_allclose(brightness(image[None])[0], row, atol=1e-6)


def test_the_least_certain_mixtures(ask, student, tmp_path, paths):
    """Slowly, of all 15 pairs and 11 shares of each."""
    file, _ = made(ask, tmp_path / '0')
    _, held = made(ask, tmp_path / '1', student, asked=file)
    pool = Pool('X', paths['plain'])
    model = build_model(Config.fromfile(paths['plain'])).eval()
    model.load_state_dict(weights(student['student'].checkpoint))
    judge, found = Confidence(model), []
    alone = held['first'][:6].tolist()
    for n, i in enumerate(alone):
        for j in alone[n + 1 :]:
            a, b = pool.image(i)[None], pool.image(j)[None]
            values = [float(judge(mixed(a, b, torch.tensor([s])))) for s in SHARES]
            share = SHARES[int(np.argmin(values))]
            found.append((min(values), i, j, share))
    wanted = [entry[1:] for entry in sorted(found)[:5]]
    columns = (held[name][6:].tolist() for name in ('first', 'second', 'share'))
    assert [(i, j, round(s, 2)) for i, j, s in zip(*columns, strict=True)] == wanted
    again = made(ask, tmp_path / 'again', student, asked=file)[1]
    assert all(np.array_equal(held[key], again[key]) for key in held), 'same seed, same selection'
    _, other = made(ask, tmp_path / 'random', asked=file, choose='random')
    assert not np.array_equal(other['share'], held['share']), 'and without a student'


def test_a_part_of_the_pairs(ask, student, tmp_path):
    file, _ = made(ask, tmp_path / '0')
    _, held = made(ask, tmp_path / '1', student, asked=file)
    _, part = made(ask, tmp_path / '2', student, asked=file, pairs=6)
    assert not np.array_equal(part['second'], held['second'])


def test_images_instead_of_mixtures(ask, student, tmp_path, paths):
    file, _ = made(ask, tmp_path / '0', mix=False)
    _, held = made(ask, tmp_path / '1', student, asked=file, mix=False)
    assert len({*held['first']}) == 11 and (held['second'] == ALONE).all()
    model = build_model(Config.fromfile(paths['plain'])).eval()
    model.load_state_dict(weights(student['student'].checkpoint))
    pool = Pool('X', paths['plain'])
    rest = [i for i in range(12) if i not in held['first'][:6]]
    values = Confidence(model)(torch.stack([pool.image(i) for i in rest]))
    assert held['first'][6:].tolist() == [rest[i] for i in values.argsort().tolist()[:5]]


def test_a_file_of_answers(ask, tmp_path, paths):
    pool = Pool('X', paths['plain'])
    names = [pool.dataset.get_data_info(i)['img_path'] for i in range(12)]
    scores = torch.rand(12, 3).softmax(1).numpy()
    np.savez(tmp_path / 'scores.npz', keys=np.array(names), scores=scores)
    box = dict(type='mmkd.Cached', file=str(tmp_path / 'scores.npz'))
    _, held = made(ask, tmp_path / '0', mix=False, black_box=box)
    np.testing.assert_allclose(held['scores'], scores[held['first']], atol=1e-6)
    with pytest.raises(ValueError, match='which has none for mixtures. Set mix=False'):
        made(ask, tmp_path / '1', black_box=box)


def test_the_budget(ask, student, tmp_path):
    file, _ = made(ask, tmp_path / '0', budget=8)
    file, held = made(ask, tmp_path / '1', student, asked=file, budget=8)
    assert len(held['keys']) == 8 == sum(CALLS), 'the last round asks what is left'
    with pytest.raises(ValueError, match='8 images were asked, and the budget is 8'):
        made(ask, tmp_path / '2', student, asked=file, budget=8)
    assert sum(CALLS) == 8


def test_what_was_answered_before_a_kill_is_not_asked_again(ask, tmp_path, monkeypatch):
    monkeypatch.setattr('mmkd.makers.queries.BATCH', 4)
    assert BATCH > 4

    kills = [True]

    def answers(images):
        if CALLS and kills.pop():
            raise KeyboardInterrupt
        return counted(images)

    box = dict(type='mmkd.Function', call=answers)
    with pytest.raises(KeyboardInterrupt):
        made(ask, tmp_path / '0', black_box=box)
    kills.append(False)
    with pytest.raises(ValueError, match='holds answers to other queries'):
        made(ask, tmp_path / '0')  # another black box
    _, held = made(ask, tmp_path / '0', black_box=box)
    assert CALLS == [4, 2]
    np.testing.assert_array_equal(held['scores'], made(ask, tmp_path / 'whole')[1]['scores'])
    with pytest.raises(ValueError, match='holds answers to other queries'):
        made(ask, tmp_path / '0', black_box=box, seeds=7)


def test_a_chain(ask, paths, images, tmp_path):
    """A frozen network of mmkd is the black box; the student learns from its answers."""
    answers = dict(_delete_=True, type='mmkd.AnsweredImages', answers='')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]
    dataset = dict(answers, pipeline=pipeline)
    paths = paths | write(tmp_path, images, answers={'train_dataloader.dataset': dataset})
    make = {key: value for key, value in ask.items() if key != 'black_box'}
    answered = {'train_dataloader.dataset.answers': 'ask0'}
    stages = dict(
        teacher=dict(config=paths['teacher']),
        ask0=dict(make=make, teacher='teacher'),
        student0=dict(config=paths['answers'], files=answered),
        ask1=dict(make=make, teacher='teacher', student='student0', files=dict(asked='ask0')),
        student1=dict(config=paths['answers'], files={'train_dataloader.dataset.answers': 'ask1'}),
    )
    _, products = run(stages, tmp_path / 'chain')
    first = weights(products['student1'].checkpoint)
    assert products['ask1'].scores == dict(queries=11)
    said, _ = run(stages, tmp_path / 'chain')
    assert all('done already' in line for line in said[:5])
    _, products = run(stages, tmp_path / 'other')
    assert equal(first, weights(products['student1'].checkpoint))
    stages['ask1']['files'] = dict(askd='ask0')
    with pytest.raises(ValueError, match="ActiveMixup has no option askd.*Did you mean 'asked'"):
        Chain(stages, str(tmp_path / 'third'))


def other_network(tmp_path, model):
    Config(dict(model=model)).dump(tmp_path / 'other.py')
    return dict(teacher=Product(str(tmp_path / 'other.py'), 'random', ''))


def test_bad_options(ask):
    for options, message in (
        (dict(seeds=1), 'seeds must be a whole number of at least 2'),
        (dict(add=0), 'add must be a whole number of at least 1'),
        (dict(budget=5), 'budget=5 does not suffice for the first 6 images'),
        (dict(choose='best'), 'choose must be one of'),
        (dict(pairs=4), 'pairs must be a whole number of at least 5'),
    ):
        with pytest.raises(ValueError, match=message):
            build_maker(dict(ask, **options))


def test_bad_networks(ask, student, tmp_path, paths):
    with pytest.raises(ValueError, match='asks one black box.*found neither'):
        made(ask, tmp_path / '0', black_box=None)
    given = other_network(tmp_path, tiny_classifier(4, num_classes=4))
    with pytest.raises(ValueError, match='asks one black box.*found both'):
        made(ask, tmp_path / '0', given)
    with pytest.raises(ValueError, match='the black box has 4 classes .* and the student 3'):
        made(ask, tmp_path / '0', given, black_box=None)
    given = other_network(tmp_path, tiny_pspnet(4))
    with pytest.raises(ValueError, match='needs an image classifier'):
        made(ask, tmp_path / '0', config=given['teacher'].config)
    box = dict(type='mmkd.VisionModel', model=torch.nn.Conv2d(3, 8, 4, 4), checkpoint='random')
    with pytest.raises(ValueError, match='works with class scores'):
        made(ask, tmp_path / '0', black_box=dict(box, patch=4))
    assert not CALLS


def test_bad_rounds(ask, student, tmp_path, paths):
    with pytest.raises(ValueError, match='seeds=13, but the pool has 12 images'):
        made(ask, tmp_path / '0', seeds=13)
    file, held = made(ask, tmp_path / '0')
    with pytest.raises(ValueError, match="choose='uncertain' needs a student"):
        made(ask, tmp_path / '1', asked=file)
    with pytest.raises(ValueError, match='16 queries are to be added, but only 15 pairs'):
        made(ask, tmp_path / '1', student, asked=file, add=16)
    with pytest.raises(ValueError, match='7 queries are to be added, but only 6 images'):
        made(ask, tmp_path / '1', student, asked=file, add=7, mix=False)
    for change, message in (
        (dict(pool=np.array('x')), 'are of other images'),
        (dict(scores=np.full((6, 2), 0.5)), 'have 2 classes and the student has 3'),
    ):
        np.savez(tmp_path / 'bad.npz', **(held | change))
        with pytest.raises(ValueError, match=message):
            made(ask, tmp_path / '1', student, asked=str(tmp_path / 'bad.npz'))
    np.savez(tmp_path / 'bad.npz', keys=held['keys'], scores=held['scores'])
    with pytest.raises(ValueError, match='was not written by mmkd make ActiveMixup'):
        made(ask, tmp_path / '1', student, asked=str(tmp_path / 'bad.npz'))
    assert CALLS == [6]


def test_images_of_one_size(ask, images, tmp_path):
    config = Config.fromfile(ask['config'])
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResize', scale=(8, 8), ratio_range=(0.5, 3.0)),
        dict(type='mmkd.PackClassInputs'),
    ]
    config.val_dataloader.dataset.pipeline = pipeline
    config.dump(tmp_path / 'sizes.py')
    with pytest.raises(ValueError, match='Let it resize all to one size'):
        made(ask, tmp_path / '0', config=str(tmp_path / 'sizes.py'))
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.dump(tmp_path / 'none.py')
    with pytest.raises(ValueError, match='must have a train_dataloader'):
        made(ask, tmp_path / '0', config=str(tmp_path / 'none.py'))


def test_settled_before_it_is_asked(ask, tmp_path):
    def fails(images):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        made(ask, tmp_path / '0', black_box=dict(type='mmkd.Function', call=fails))
    held = json.loads((tmp_path / '0' / 'chosen.json').read_text())
    assert len(held['chosen']) == 6 and len([*(tmp_path / '0' / 'images').iterdir()]) == 6
