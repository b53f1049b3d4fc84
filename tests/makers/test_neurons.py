"""Neurons: the file of channels, from classes or from a table of attributes, and its chain."""

import json

import pytest
import torch
from chain_toys import run, write

from mmkd.chain import Product, build_maker
from mmkd.makers import neurons
from mmkd.testing import tiny_classifier

NAMES = [f'{name}/{i}.png' for name in 'abc' for i in range(4)]


@pytest.fixture
def teacher(paths, monkeypatch):
    """Features of twelve images: of class a, of none, constant, of a again, of a part of each."""
    values = torch.zeros(12, 5)
    values[:4, 0], values[:4, 3] = 1.0, 2.0
    values[:4, 0] += torch.linspace(0, 0.1, 4)
    values[::2, 1], values[:, 2] = 1.0, 5.0
    values[:, 4] = torch.arange(12) // 4 + torch.arange(12) % 4 * 0.2
    monkeypatch.setattr(neurons, 'teacher_embeddings', lambda *args, **kwargs: values)
    return dict(teacher=Product(paths['teacher'], 'random', ''))


def made(given, folder, **options):
    product = build_maker(dict(type='mmkd.Neurons', **options))(given, str(folder))
    return json.loads((folder / 'channels.json').read_text()), product


def table(folder, rows, head='image,glasses,beard,light,blur'):
    lines = [head, *(f'{name},{",".join(map(str, row))}' for name, row in rows)]
    (folder / 'attributes.csv').write_text('\n'.join(lines) + '\n')
    return dict(
        attributes=str(folder / 'attributes.csv'),
        identity=['glasses', 'beard'],
        nuisance=['light', 'blur'],
    )


def rows():
    """glasses: class a; beard: class b; light: every second image; blur: every third, as -1 and 1."""
    return [
        (name, (int(i < 4), int(4 <= i < 8), int(i % 2 == 0), 1 if i % 3 == 0 else -1))
        for i, name in enumerate(NAMES)
    ]


def test_by_classes(teacher, tmp_path):
    found, product = made(teacher, tmp_path, count=2, lam=0)
    assert found['channels'] == [3, 0] and found['of'] == 5 and found['silent'] == 1
    assert found['cost'][0] == 0 < found['cost'][1]
    assert product.scores == dict(channels=2)
    found, _ = made(teacher, tmp_path, count=2, lam=2)
    assert found['channels'] == [3, 4], '0 tells what 3 tells'


def test_by_attributes(teacher, tmp_path):
    given = table(tmp_path, rows())
    found, _ = made(teacher, tmp_path, count=3, lam=0, **given)
    assert {*found['channels']} == {0, 3, 4}
    with pytest.raises(ValueError, match='count=4, but 3 channels tell anything of identity'):
        made(teacher, tmp_path, count=4, **given)  # that of the light tells none


def test_by_worth(teacher, tmp_path):
    few, _ = made(teacher, tmp_path, theta=0.05, lam=0)
    more, _ = made(teacher, tmp_path, theta=1.0, lam=0)
    assert {*few['channels']} < {*more['channels']}
    with pytest.raises(ValueError, match='no channel is worth its cost with theta=-1'):
        made(teacher, tmp_path, theta=-1, lam=0)


def test_a_chain(paths, images, tmp_path):
    """The path of the file goes into the braces of the tap; FitNet sees three channels."""
    fitnet = dict(type='mmkd.FitNet', student='pool', teacher='pool{}', adapt='auto', weight=0.1)
    teacher = dict(config=tiny_classifier(8), checkpoint='random')
    paths = paths | write(
        tmp_path, images, fitnet=dict(teacher=teacher, objectives=dict(fitnet=fitnet))
    )
    stages = dict(
        teacher=dict(config=paths['teacher']),
        neurons=dict(make=dict(type='mmkd.Neurons', count=3), teacher='teacher'),
        student=dict(
            config=paths['fitnet'],
            teacher='teacher',
            files={'model.objectives.fitnet.teacher': 'neurons'},
        ),
    )
    _, products = run(stages, tmp_path / 'chain')
    state = torch.load(products['student'].checkpoint, weights_only=False)['state_dict']
    adapter = next(v for k, v in state.items() if k.startswith('objectives.') and v.dim() == 2)
    assert len(adapter) == 3


def test_bad_options(teacher, tmp_path):
    for options, message in (
        (dict(), 'give either count=.*or theta='),
        (dict(count=1, theta=1.0), 'give either count=.*or theta='),
        (dict(count=0), 'count must be a whole number of at least 1'),
        (dict(count=1, lam=-1), 'lam must be a finite number of at least 0'),
        (dict(count=1, temperature=0), 'temperature must be a finite number above 0'),
        (dict(count=1, identity=['x', 'y'], nuisance=['z', 'w']), 'attributes= is a table'),
        (dict(count=1, attributes='x.csv', identity=['a'], nuisance=['b', 'c']), 'two columns'),
    ):
        with pytest.raises(ValueError, match=message):
            build_maker(dict(type='mmkd.Neurons', **options))
    with pytest.raises(ValueError, match='needs a teacher'):
        made({}, tmp_path, count=1)
    with pytest.raises(ValueError, match='count=5, but 3 channels tell anything'):
        made(teacher, tmp_path, count=5)


def test_bad_tables(teacher, tmp_path):
    given = table(tmp_path, rows())
    with pytest.raises(FileNotFoundError, match='there is no file nowhere.csv'):
        made(teacher, tmp_path, count=1, **(given | dict(attributes='nowhere.csv')))
    with pytest.raises(ValueError, match='has no attribute hat, but glasses, beard, light, blur'):
        made(teacher, tmp_path, count=1, **(given | dict(identity=['hat', 'beard'])))
    one = [(name, (1, *row[1:])) for name, row in rows()]
    with pytest.raises(ValueError, match=r"all images or none have \['glasses'\]"):
        made(teacher, tmp_path, count=1, **table(tmp_path, one))
    with pytest.raises(ValueError, match='a/3.png.* is not in .*attributes.csv, which has a/0.png'):
        made(teacher, tmp_path, count=1, **table(tmp_path, rows()[:3]))
    with pytest.raises(ValueError, match='must have 1 or 0 .* of 4 attributes'):
        made(teacher, tmp_path, count=1, **table(tmp_path, [(n, (2, 1, 0, 1)) for n in NAMES]))


def test_bad_features(teacher, paths, images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        neurons, 'teacher_embeddings', lambda *a, **k: torch.full((12, 2), torch.nan)
    )
    with pytest.raises(ValueError, match='are not finite'):
        made(teacher, tmp_path, count=1)
    monkeypatch.setattr(neurons, 'teacher_embeddings', lambda *a, **k: torch.rand(12, 2))
    monkeypatch.setattr(neurons, 'entries_of', lambda config: [dict(img_path=n) for n in NAMES])
    with pytest.raises(ValueError, match='the training images need classes'):
        made(teacher, tmp_path, count=1)
