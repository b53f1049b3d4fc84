"""ActiveLabels: which images it asks about, how often, and that nothing is asked twice."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import view_toys
from chain_toys import run
from mmengine.config import Config
from view_toys import BOX, Bright, picture

from mmkd.chain import Product, build_maker
from mmkd.makers import box_queries, pseudo_labels
from mmkd.makers.box_queries import DetectingNetwork
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_retinanet

CALLS = []
NAMES = 'abcdefgh'
#: of the student, by image: the entropy is highest for h, b, a, in this order, the best score lowest
#: for h, f, b
SCORES = dict(a=[0.7, 0.6], b=[0.6, 0.55], c=[0.95], d=[0.9], e=[0.8], f=[0.3], g=[0.99], h=[])


def finds(image):
    """One box of class y on what is white; remembers which image it saw."""
    CALLS.append(int(image[0, 0, 0]))
    return dict(boxes=[BOX], scores=[0.9], labels=[1])


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
    """Products of a detector and a classifier of x and y, and of detectors of other names."""
    folder, found = tmp_path_factory.mktemp('networks'), {}
    two = tiny_retinanet(4, num_classes=2)
    cases = dict(detector=(two, 'xy'), classifier=(tiny_classifier(4, num_classes=2), 'xy'))
    for name, (model, classes) in (cases | dict(other=(two, 'xz'), nameless=(two, ''))).items():
        Config(dict(view_toys.config()._cfg_dict, model=model)).dump(folder / f'{name}.py')
        state, meta = build_model(model).state_dict(), dict(classes=[*classes]) if classes else {}
        torch.save(dict(state_dict=state, meta=dict(dataset_meta=meta)), folder / f'{name}.pth')
        found[name] = Product(str(folder / f'{name}.py'), str(folder / f'{name}.pth'), '')
    return found


@pytest.fixture
def ask(tmp_path):
    """Eight images, and a function that knows x and y."""
    CALLS.clear()
    (tmp_path / 'images' / 'sub').mkdir(parents=True)
    for name in NAMES:
        picture(tmp_path / 'images' / ('sub' if name > 'd' else '.') / f'{name}.png')
    options = dict(images=str(tmp_path / 'images'), seeds=3, add=2, classes=['x', 'y'])
    return dict(options, type='mmkd.ActiveLabels', black_box=finds)


@pytest.fixture
def student(networks, monkeypatch):
    """A student whose scores are known."""

    def scores(self, file):
        return torch.tensor(SCORES[Path(file).stem])

    monkeypatch.setattr(DetectingNetwork, 'scores', scores)
    return dict(student=networks['detector'])


def made(entry, folder, given={}, **options):  # noqa: B006
    """The product, and the names of the images in the order in which they were asked."""
    folder.mkdir(exist_ok=True)
    product = build_maker(dict(entry, **options))(given, str(folder))
    held = json.loads((folder / 'asked.json').read_text())
    return product, ''.join(Path(row['image']).stem for row in held['images'])


def annotations(product):
    held = json.loads(Path(product.checkpoint).read_text())
    return {key: held[key] for key in ('images', 'annotations', 'categories')}


def test_rounds(ask, student, tmp_path):
    product, first = made(ask, tmp_path / '0')
    assert len(CALLS) == 3 == len({*first}) and product.scores == dict(queries=3)
    product, second = made(ask, tmp_path / '1', student, asked=product.checkpoint)
    assert second[:3] == first and len({*second}) == 5 == len(CALLS), 'each image is asked once'
    product, third = made(ask, tmp_path / '2', student, asked=str(tmp_path / '1' / 'asked.json'))
    assert third[:5] == second and len({*third}) == 7 == len(CALLS)
    order = sorted(set(NAMES) - {*first}, key='hbafedcg'.index)
    assert list(third[3:]) == order[:4], 'the most uncertain that are left'
    held = annotations(product)
    assert [Path(one['file_name']).stem for one in held['images']] == sorted(third)
    assert [one['bbox'] for one in held['annotations']] == [[10, 8, 20, 12]] * 7
    entry = Config.fromfile(str(tmp_path / '2' / 'dataset.py')).pseudo
    assert entry.ann_file == product.checkpoint and (tmp_path / '2' / 'check.png').is_file()


@pytest.mark.parametrize(('choose', 'chosen'), [('entropy', 'hba'), ('least_confident', 'hfb')])
def test_the_most_uncertain_first(ask, student, tmp_path, choose, chosen):
    """Also in a first round with a student; an image without a box is the most uncertain."""
    assert made(ask, tmp_path / '0', student, choose=choose)[1] == chosen


def test_at_random(ask, student, tmp_path):
    found = [
        made(ask, tmp_path / f'{i}', student, choose='random', seed=seed)[1]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2] and 'hba' not in found
    asked = str(tmp_path / '0' / 'asked.json')
    assert len({*made(ask, tmp_path / '3', choose='random', asked=asked)[1]}) == 5, 'by nobody'


def test_all_in_one_round_are_pseudo_labels(ask, networks, tmp_path, monkeypatch):
    class Known(box_queries.ImageViews):
        def __init__(self, model, *args, **options):
            super().__init__(Bright(), *args, **options)

    monkeypatch.setattr(box_queries, 'ImageViews', Known)
    monkeypatch.setattr(pseudo_labels, 'ImageViews', Known)
    given = dict(teacher=networks['detector'])
    options = dict(black_box=None, seeds=8, budget=8, threshold=0.3)
    product, _ = made(ask, tmp_path / 'all', given, **options)
    (tmp_path / 'pseudo').mkdir()
    maker = dict(type='mmkd.PseudoLabels', images=ask['images'], threshold=0.3, flip=False)
    whole = annotations(build_maker(maker)(given, str(tmp_path / 'pseudo')))
    assert annotations(product) == whole and len(whole['annotations']) == 8


def test_the_budget(ask, student, tmp_path):
    product, _ = made(ask, tmp_path / '0', budget=4)
    product, found = made(ask, tmp_path / '1', student, budget=4, asked=product.checkpoint)
    assert len(found) == 4 == len(CALLS), 'the last round asks what is left'
    with pytest.raises(ValueError, match='4 images were asked, and the budget is 4'):
        made(ask, tmp_path / '2', student, budget=4, asked=product.checkpoint)
    assert len(CALLS) == 4


def test_what_was_answered_before_a_kill_is_not_asked_again(ask, student, tmp_path):
    def dies(image):
        if len(CALLS) == 2:
            raise KeyboardInterrupt
        return finds(image)

    with pytest.raises(KeyboardInterrupt):
        made(ask, tmp_path / '0', student, black_box=dies)
    assert not (tmp_path / '0' / 'asked.json').exists() and len(CALLS) == 2
    before = json.loads((tmp_path / '0' / 'chosen.json').read_text())['chosen']
    product, found = made(ask, tmp_path / '0', student)
    assert len(CALLS) == 3 and found == ''.join(Path(image).stem for image in before)
    assert annotations(product) == annotations(made(ask, tmp_path / 'whole', student)[0])
    with pytest.raises(ValueError, match='no object of 3 images reaches its threshold'):
        made(ask, tmp_path / '0', student, threshold=0.95)
    made(ask, tmp_path / '0', student, threshold=0.2)
    assert len(CALLS) == 6, 'another threshold asks nothing'
    with pytest.raises(ValueError, match='holds answers to other queries'):
        made(ask, tmp_path / '0', student, seeds=4)


def test_a_chain(ask, tmp_path):
    """Rounds hand on what was asked; what is done is not asked again."""
    (tmp_path / 'service.py').write_text(
        'seen = []\n\n\ndef find(image):\n    seen.append(image)\n'
        '    return dict(boxes=[[0, 0, 9, 9]], scores=[0.9], labels=[0])\n'
    )
    make = dict(ask, black_box=f'{tmp_path}/service.py:find', choose='random')
    stages = dict(ask0=dict(make=make), ask1=dict(make=make, files=dict(asked='ask0')))
    _, products = run(stages, tmp_path / 'chain')
    seen = box_queries.named_object('', make['black_box']).__globals__['seen']
    assert products['ask1'].scores == dict(queries=5) and len(seen) == 5
    said, _ = run(stages, tmp_path / 'chain')
    assert all('done already' in line for line in said[:2]) and len(seen) == 5


def test_bad_options(ask):
    for options, message in (
        (dict(seeds=0), 'seeds must be a whole number of at least 1'),
        (dict(add=0), 'add must be a whole number of at least 1'),
        (dict(budget=2), 'budget=2 does not suffice for the first 3 images'),
        (dict(choose='best'), 'choose must be one of'),
        (dict(threshold='match'), 'set labelled= to their COCO file or config'),
    ):
        with pytest.raises(ValueError, match=message):
            build_maker(dict(ask, **options))


def test_bad_networks(ask, networks, tmp_path):
    for given, options, message in (
        ({}, dict(black_box=None), 'asks one black box.*found neither'),
        (dict(teacher='detector'), {}, 'asks one black box.*found both'),
        (dict(teacher='classifier'), dict(black_box=None), 'the teacher, Classifier, finds no obj'),
        (dict(student='classifier'), {}, 'the student, Classifier, finds no objects. Name a det'),
        (dict(student='other'), {}, r'has 2 classes \(x, y\) and the student 2 \(x, z\)'),
        (dict(student='other', teacher='detector'), dict(black_box=None, classes=None), 'x, z'),
        (dict(teacher='nameless'), dict(black_box=None, classes=None), 'give them by classes='),
        ({}, dict(black_box=3), 'black_box must be a function'),
        ({}, dict(black_box='nowhere:f'), "black_box: there is no 'nowhere:f'"),
        ({}, dict(threshold=dict(z=0.5)), "threshold names 'z', but the classes are x, y"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            products = {role: networks[name] for role, name in given.items()}
            made(ask, tmp_path / '0', products, **options)
    assert not CALLS


def test_bad_rounds(ask, student, tmp_path):
    with pytest.raises(ValueError, match='9 images are to be asked, but only 8 .*Lower seeds'):
        made(ask, tmp_path / '0', seeds=9)
    product, _ = made(ask, tmp_path / '0')
    with pytest.raises(ValueError, match="choose='entropy' needs a student"):
        made(ask, tmp_path / '1', asked=product.checkpoint)
    with pytest.raises(ValueError, match='6 images are to be asked, but only 5 .*Lower add'):
        made(ask, tmp_path / '1', student, asked=product.checkpoint, add=6)
    with pytest.raises(ValueError, match=r'are of 2 classes \(x, y\), and the black box has 3'):
        made(ask, tmp_path / '1', asked=product.checkpoint, classes=['x', 'y', 'z'])
    held = json.loads((tmp_path / '0' / 'asked.json').read_text())
    rows = held['images']
    for change, message in (
        (dict(images=[*rows, rows[1]]), '1 of 3 images were asked twice'),
        (dict(images=[*rows, dict(rows[0], image='z.png')]), '1 of 4 images .* not among the 8'),
    ):
        (tmp_path / 'asked.json').write_text(json.dumps(held | change))
        with pytest.raises(ValueError, match=message):
            made(ask, tmp_path / '1', student, asked=str(tmp_path / 'asked.json'))
    (tmp_path / 'asked.json').write_text('[]')
    with pytest.raises(ValueError, match='was not written by mmkd make ActiveLabels'):
        made(ask, tmp_path / '1', student, asked=str(tmp_path / 'asked.json'))
    with pytest.raises(FileNotFoundError, match='there is no file .*asked.json'):
        made(ask, tmp_path / '1', student, asked=str(tmp_path / '1' / 'asked.json'))
    assert len(CALLS) == 3


def test_bad_pools(ask, tmp_path):
    """Nothing is asked, where an image could not be."""
    for name in NAMES:
        next((tmp_path / 'images').rglob(f'{name}.png')).write_bytes(b'' if name < 'd' else b'no')
    with pytest.raises(ValueError, match='is damaged or no image. Repair or remove it'):
        made(ask, tmp_path / '0')
    shutil.rmtree(tmp_path / 'images')
    (tmp_path / 'images').mkdir()
    with pytest.raises(FileNotFoundError, match='ActiveLabels: .* has no images'):
        made(ask, tmp_path / '1')
    assert not CALLS
