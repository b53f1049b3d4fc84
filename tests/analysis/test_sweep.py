"""Runs that differ in one number: their spread, their subsets, and what is not compared."""

import json
import math

import pytest
import torch
from mmengine.config import Config

from mmkd.analysis import sweep
from mmkd.analysis.sweep import add_densities, factor_of, read_sweep, spread, terciles

KEY = 'model.objectives.hdkd.weight'


def test_factors_of_ratios():  # HR-1
    found = [factor_of(ratio) for ratio in ('1:1', '1:2', '2:1', '3:1')]
    assert found == pytest.approx([1, 2, 0.5, 1 / 3])
    for ratio in ('1', '0:1', 'a:b', '1:0', '1:-2'):
        with pytest.raises(ValueError, match='A ratio is written as'):
            factor_of(ratio)


def test_the_spread_of_the_four():  # HR-2
    found = spread([36.1, 36.7, 35.9, 36.3])
    assert found['mean'] == pytest.approx(36.25)
    assert found['std'] == pytest.approx(0.3415650, abs=1e-6)
    assert found['range'] == pytest.approx(0.8)
    assert math.isnan(spread([1.0])['std'])


def test_thirds_by_number_of_objects():  # HR-3
    counts = [9, 2, 3, 1, 9, 2]
    groups = [[counts[i] for i in group] for group in terciles(counts)]
    assert groups == [[2, 1, 2], [3], [9, 9]]
    assert terciles([4, 4, 4]) == [[0, 1, 2], [], []]


def written(folder, weight=1.0, seed=0, score=0.3, epochs=2, done=2, **changes):
    """A work dir as a run leaves it."""
    model = dict(type='mmkd.Distiller', student=dict(type='FCOS'), objectives={})
    model['objectives'] = dict(hdkd=dict(type='mmkd.HDKD', weight=weight))
    config = dict(
        model=model,
        train_cfg=dict(max_epochs=epochs),
        randomness=dict(seed=seed),
        work_dir=str(folder),
        default_scope='mmdet',
        lr=0.1,
    )
    logs = folder / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    Config(config | changes).dump(folder / 'hdkd.py')
    lines = [dict(lr=0.1, loss=1.0, step=1), {'coco/bbox_mAP': score, 'step': done}]
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    torch.save(
        dict(state_dict=dict(x=torch.zeros(1)), meta=dict(epoch=done, iter=9), message_hub={}),
        folder / f'epoch_{done}.pth',
    )
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    scores = {0.5: 36.1, 1.0: 36.7, 2.0: 35.9, 1 / 3: 36.3}
    return [
        written(tmp_path / f'r{i}', weight, score=score)
        for i, (weight, score) in enumerate(scores.items())
    ]


def test_a_table_of_values(runs, tmp_path):
    baseline = written(tmp_path / 'plain', 0.0, score=35.25)
    found = read_sweep(runs, KEY, [baseline])
    assert (found.metric, list(found.by_value())) == ('coco/bbox_mAP', [1 / 3, 0.5, 1.0, 2.0])
    text = '\n'.join(found.lines())
    assert '| 0.333333 | 36.3 | 36.3 |' in text and '| baseline | 35.25 | 35.25 |' in text
    assert 'mean over 4 values' in text and '36.25, standard deviation 0.3416, range 0.8' in text
    assert 'gain of the mean on the baseline: +1' in text
    assert 'one seed a value: differences may be those of seeds' in text


def test_seeds_of_one_value(runs, tmp_path):
    more = written(tmp_path / 'again', 1.0, seed=1, score=36.9)
    plain = written(tmp_path / 'plain', dict(value=0.0), score=35.0)
    found = read_sweep([*runs, more], KEY, [plain])
    text = '\n'.join(found.lines())
    assert '| 1 | 36.7 / 36.9 | 36.8 |' in text
    assert 'the baseline has other seeds than the runs' in text and 'one seed' not in text


def test_one_value_has_no_spread(runs):
    text = '\n'.join(read_sweep(runs[:1], KEY).lines())
    assert 'one value has no spread' in text and 'standard deviation' not in text


def test_an_unfinished_run_is_left_out_by_name(runs, tmp_path):
    short = written(tmp_path / 'short', 4.0, done=1)
    found = read_sweep([*runs, short], KEY)
    assert len(found.runs) == 4 and f'{short} is not finished (1 of 2)' in found.lines()[-1]
    with pytest.raises(ValueError, match='No finished run to compare. .*short is not finished'):
        read_sweep([short], KEY)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (dict(lr=0.2), 'differ in lr, not in'),
        (dict(weight='much'), 'no number. Name the key that differs'),
    ],
)
def test_other_differences_are_refused(runs, tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        read_sweep([*runs, written(tmp_path / 'other', **make)], KEY)


def test_other_keys_metrics_and_folders(runs, tmp_path):
    with pytest.raises(ValueError, match='model.objectives.kd.weight=None, which is no number'):
        read_sweep(runs, 'model.objectives.kd.weight')
    with pytest.raises(ValueError, match='has no metric top1. It has: coco/bbox_mAP'):
        read_sweep(runs, KEY, metric='top1')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='is no work dir of a run'):
        read_sweep([str(tmp_path / 'empty')], KEY)


def test_a_plain_run_as_the_baseline(runs, tmp_path):
    """Data and schedule have to be those of the runs."""
    model = dict(type='FCOS')
    plain = written(tmp_path / 'plain', score=35.0, model=model)
    assert len(read_sweep(runs, KEY, [plain]).baseline) == 1
    other = written(tmp_path / 'longer', score=35.0, model=model, lr=0.2)
    with pytest.raises(ValueError, match='differ in lr'):
        read_sweep(runs, KEY, [other])


def test_scores_by_density(runs, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(sweep, 'object_counts', lambda config: [1, 2, 2, 3, 9, 9])

    def score(name, entry, config, work_dir, indices):
        asked.append((entry.checkpoint, tuple(indices)))
        return dict(bbox_mAP=float(len(indices)))

    monkeypatch.setattr(sweep, 'score_entry', score)
    found = read_sweep(runs[:2], KEY)
    add_densities(found, str(tmp_path))
    assert len(asked) == 6 and asked[0][1] == (0, 1, 2) and asked[2][1] == (4, 5)
    assert '| few objects | some objects | many objects |' in found.lines()[0]
    assert found.lines()[2].endswith('| 3 | 1 | 2 |')
