"""A real search on a few images: who goes on, what is looked at, and what a kill leaves."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config

from mmkd.analysis.routes import Search, ranked, search_routes
from mmkd.analysis.short_runs import Probe, ProbeLog, Prober
from mmkd.config import load_config
from mmkd.datasets.synthetic import write_folders
from mmkd.registry import TRANSFORMS
from mmkd.testing import tiny_classifier

TOOL = Path(__file__).parents[2] / 'tools' / 'search_routes.py'
ROUTES = [(0, 0), (1, 1), (2, 2)]
#: (whether gradients were on, as in training only; image) for everything that was loaded
SEEN = []


@TRANSFORMS.register_module()
class NoteImage(BaseTransform):
    def transform(self, results):
        SEEN.append((torch.is_grad_enabled(), '/'.join(Path(results['img_path']).parts[-3:])))
        return results


def folders(root, split='train', **options):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmkd.NoteImage'),
        dict(type='mmkd.RandomCrop', size=16, padding=2),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmkd.PackClassInputs'),
    ]
    prefix = dict(img_path=split)
    return dict(
        type='mmkd.ClassFolders', data_root=str(root), data_prefix=prefix, pipeline=pipeline
    ) | dict(options)


def recipe(root):
    """Six epochs with three routes, with all that a real config has beside."""

    def loader(split, **options):
        sampler = dict(type='DefaultSampler', shuffle=split == 'train')
        dataset = folders(root, split, **options)
        return dict(batch_size=8, num_workers=0, sampler=sampler, dataset=dataset)

    val, metric = loader('val', test_mode=True), dict(type='mmkd.Accuracy')
    model = dict(
        type='mmkd.Distiller',
        student=tiny_classifier(4, 5),
        teacher=dict(config=tiny_classifier(8, 5), checkpoint='random'),
        objectives=dict(
            guide=dict(type='mmkd.GuidanceRoute', weight=dict(decay='linear')),
            kd=dict(type='mmkd.KD'),
        ),
        preflight=dict(score=4),
    )
    return Config(
        dict(
            default_scope='mmengine',
            model=model,
            train_dataloader=loader('train'),
            val_dataloader=val,
            test_dataloader=val,
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(by_epoch=True, max_epochs=6),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            log_level='ERROR',
        )
    )


def run_tool(*arguments):
    argv, sys.argv = sys.argv, ['search_routes.py', *map(str, arguments)]
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    finally:
        sys.argv = argv


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """Folder of a search by the tool; what it wrote is in ``out.json``."""
    folder = tmp_path_factory.mktemp('routes')
    write_folders(folder / 'data', 40, 5, size=(16, 16))
    recipe(folder / 'data').dump(folder / 'mine.py')
    SEEN.clear()
    where = ['--work-dir', folder / 'a', '--out', folder / 'made' / 'out.json']
    run_tool(folder / 'mine.py', '--hold-out', 0.2, *where)
    return folder, json.loads((folder / 'made' / 'out.json').read_text()), list(SEEN)


def search(folder, work_dir, said=None, **options):
    config = load_config(str(folder / 'mine.py'))
    for key, value in options.pop('changes', {}).items():
        config.merge_from_dict({key: value})
    options = dict(hold_out=0.2, progress=said or (lambda line: None)) | options
    return search_routes(config, str(folder / work_dir), **options)


def test_the_better_half_rounded_up_trains_twice_as_long(searched):
    _, result, _ = searched
    assert [tuple(entry['route']) for entry in result['routes']] == ROUTES
    first, second = result['rounds']
    assert sorted(p['route'] for p in first) == [list(route) for route in ROUTES]
    assert sorted(p['route'] for p in second) == sorted(p['route'] for p in first[:2])
    assert {p['epochs'] for p in first} == {1} and {p['epochs'] for p in second} == {2}
    for probes in (first, second):
        joints = [p['joint'] for p in probes]
        assert joints == sorted(joints) and len(set(joints)) == len(joints)
        assert all(p['joint'] == p['task'] + p['term'] and p['term'] > 0 for p in probes)
    assert result['winner'] == second[0]['route']
    assert result['gap'] == second[1]['joint'] - second[0]['joint']
    longer = {tuple(p['route']): p['task'] for p in second}
    assert all(longer[tuple(p['route'])] != p['task'] for p in first[:2])


def test_no_image_is_both_trained_on_and_held_out_and_none_is_of_another_split(searched):
    _, _, seen = searched
    trained = {name for train, name in seen if train}
    held = {name for train, name in seen if not train}
    assert len(trained) == 32 and len(held) == 8 and not trained & held
    count = [sum(train == flag for train, _ in seen) for flag in (True, False)]
    looks = 3 + 2  # each run loads one image before the first step, to see that it can be
    assert count == [(3 * 1 + 2 * 2) * 32 + looks, (3 + 2) * 8]
    assert all(name.startswith('train/') for name in trained | held)


def test_probes_of_a_round_differ_in_their_route_alone(searched):
    """Without learning, equal weights, batches and crops give equal task losses."""
    folder, _, _ = searched
    changes = {
        'optim_wrapper.optimizer.lr': 0.0,
        'model.objectives.guide.routes': ROUTES[:2],
        'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=8),
    }
    SEEN.clear()
    found = search(folder, 'still', changes=changes)
    # One epoch each, of a loop without epochs, and the look at one image before.
    assert sum(train for train, _ in SEEN) == 2 * (32 + 1)
    first, second = found.rounds[0]
    assert first.task == second.task and first.term != second.term


def test_a_killed_search_goes_on_and_ends_with_the_same_numbers(searched):
    folder, result, _ = searched
    said = []

    def killed(line):
        said.append(line)
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(folder, 'b', killed)
    kept = json.loads((folder / 'b' / 'probes.json').read_text())['probes']
    assert [p['route'] for p in kept] == [[0, 0], [1, 1]]
    logs = folder / 'b' / 'epochs1_1_1'
    logs.rename(folder / 'gone')
    found = search(folder, 'b')
    assert not logs.exists()  # it was not trained again
    assert json.loads(json.dumps(found.as_dict())) == result
    assert not list((folder / 'b').rglob('*.pth'))


def test_probes_of_another_search_are_refused(searched):
    folder, result, _ = searched
    with pytest.raises(ValueError, match='another search, which differs in seed. Give another'):
        search(folder, 'a', seed=1)
    assert search(folder, 'a').winner == tuple(result['winner'])  # by the tool or not, it is one
    with pytest.raises(ValueError, match='differs in config'):
        search(folder, 'a', changes={'optim_wrapper.optimizer.lr': 0.2})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(epochs=4), 'trains 8 epochs of 4 steps, but the whole run has 24 steps'),
        (dict(epochs=0), 'epochs must be a whole number of at least 1'),
        (dict(rank='accuracy'), "rank must be one of .'joint', 'task'."),
        (dict(hold_out=0.001), '0.001 of 40 training images are 0'),
        (dict(objective='kd'), "found name 'kd' and of that kind: guide"),
        (
            dict(changes={'model.objectives.second': dict(type='mmkd.GuidanceRoute')}),
            'found name None and of that kind: guide, second',
        ),
        (dict(changes={'launcher': 'pytorch'}), 'in one process'),
        (dict(changes={'model.objectives.guide.weight': dict(start=0.5)}), 'is 0 in all 4 steps'),
    ],
)
def test_what_is_refused(searched, options, message):
    folder, _, _ = searched
    with pytest.raises(ValueError, match=message):
        search(folder, 'refused', **options)


def test_a_route_that_diverges_loses(searched, monkeypatch):
    folder, said = searched[0], []
    own = Prober._losses

    def losses(self, route, epochs):
        if route in diverging:
            raise FloatingPointError('kd.guide.loss = nan')
        return own(self, route, epochs)

    monkeypatch.setattr(Prober, '_losses', losses)
    diverging = [(2, 2)]
    found = search(folder, 'diverged', said.append)
    assert found.rounds[0][-1].route == (2, 2) and found.winner != (2, 2)
    assert 'round 1, (2, 2) ' in said[2] and said[2].endswith('joint loss inf')
    assert ' inf | inf | inf | inf |' in found.text()
    assert ProbeLog(folder / 'diverged' / 'probes.json', {}).find(0, (2, 2)).joint == float('inf')
    diverging = ROUTES
    with pytest.raises(FloatingPointError, match='All 3 routes diverged in round 1. Lower the'):
        search(folder, 'hopeless')


def test_a_single_route_needs_no_search(searched, capsys):
    folder, _, _ = searched
    found = search(folder, 'single', changes={'model.objectives.guide.routes': [(2, 2)]})
    assert found.winner == (2, 2) and found.gap is None and not (folder / 'single').exists()
    assert found.text().startswith('backbone.layer3 <- backbone.layer3 is the only route')


def table():
    """Three probes of which the joint and the task loss prefer different ones."""
    numbers = {(0, 0): (1.0, 0.5), (1, 1): (1.2, 0.1), (2, 2): (1.1, 0.6)}
    return [Probe(0, route, 1, *losses) for route, losses in numbers.items()]


@pytest.mark.parametrize(
    ('rank', 'order', 'gap'),
    [
        ('joint', [(1, 1), (0, 0), (2, 2)], 0.2),
        ('task', [(0, 0), (2, 2), (1, 1)], 0.1),
    ],
)
def test_the_loss_that_ranks(rank, order, gap):
    found = Search('guide', {route: 'x <- y' for route in ROUTES}, rank)
    assert found.left() == ROUTES
    found.rounds.append(ranked(table(), rank))
    assert [p.route for p in found.rounds[0]] == order and found.left() == order[:2]
    assert found.winner == order[0] and found.gap == pytest.approx(gap)
    assert f'prefers {(0, 0)}' in found.text()
    assert f'guide=dict(routes=[{order[0]}])' in found.text()


def test_equal_losses_are_told_apart_by_position():
    probes = [Probe(0, route, 1, 1.0, 0.0) for route in reversed(ROUTES)]
    assert [p.route for p in ranked(probes)] == ROUTES
