"""Teacher and students side by side, as tools/compare.py shows them."""

import copy
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import MODELS, distilled, recipe

from mmkd.analysis import comparison, complexity
from mmkd.analysis.comparison import compare, parse_students
from mmkd.analysis.score_table import form_of
from mmkd.teacher import build_model

TOOL = Path(__file__).parents[2] / 'tools' / 'compare.py'


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(complexity, 'SECONDS', 0.0)


@pytest.fixture
def weights(tmp_path):
    """Checkpoints of untrained networks."""

    def save(name, kind, seed, **changes):
        torch.manual_seed(seed)
        path = tmp_path / f'{name}.pth'
        model = build_model(MODELS[kind](**changes))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
        return str(path)

    return save


def config_of(kind, tmp_path, weights, teacher=None):
    teacher = teacher or weights('teacher', kind, 9, width=16)
    return recipe(kind, tmp_path / 'data', tmp_path / 'runs', distilled(kind, teacher))


def iou_by_hand(config, model, checkpoint):
    """IoU of each class over the config's test set, pixel by pixel."""
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope('mmseg')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    model = build_model(model).eval()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    both, either = np.zeros(19), np.zeros(19)
    for item in (dataset[i] for i in range(len(dataset))):
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([item]))
        found, truth = (x.data.squeeze(0) for x in (sample.pred_sem_seg, sample.gt_sem_seg))
        for k in range(19):
            own, wanted = (found == k) & (truth != 255), truth == k
            both[k] += int((own & wanted).sum())
            either[k] += int((own | wanted).sum())
    return {
        name: 100 * b / e if e else float('nan')
        for name, b, e in zip(dataset.metainfo['classes'], both, either, strict=True)
    }


def test_segmentor_class_by_class(tmp_path, weights, capsys):
    """From the command to the files; IoU as counted by hand, for the teacher's own network, too."""
    config = config_of('pspnet', tmp_path, weights)
    config.log_level = 'INFO'
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('plain', 'cwd'))}
    config.dump(str(tmp_path / 'config.py'))
    out = tmp_path / 'new' / 'table.json'
    students = [f'--student={name}={path}' for name, path in paths.items()]
    argv = [str(tmp_path / 'config.py'), *students, f'--out={out}', f'--work-dir={tmp_path}/runs']
    capsys.readouterr()
    run_tool([*argv, '--show=2'])
    found = json.loads(out.read_text())
    assert found['columns'] == ['teacher', 'plain', 'cwd']
    rows = found['rows']
    costs = ['parameters (M)', 'MACs (G)', 'latency (ms)']
    assert list(rows)[:6] == ['aAcc', 'mIoU', 'mAcc', *costs] and len(rows) == 19 + 6
    check_ious(config, paths, tmp_path, rows)
    assert rows['parameters (M)'][0] > rows['parameters (M)'][1] == rows['parameters (M)'][2] > 0
    assert rows['MACs (G)'][0] > rows['MACs (G)'][1] == rows['MACs (G)'][2] > 0
    assert all(value > 0 for value in rows['latency (ms)'])
    screen, error = capsys.readouterr()
    names = ['teacher', 'plain', 'cwd']
    lines = [line for line in screen.splitlines() if not line.startswith('warning: ')]
    assert error == ''
    assert lines[:3] == [f'scoring {n} ({i} of 3)' for i, n in enumerate(names, 1)]
    assert lines[3:5] == ['|  | teacher | plain | cwd | cwd - plain |', '|---' * 5 + '|']
    assert len(lines) == 5 + len(rows) + 1 + len(found['notes']) + 2
    assert all(Path(path).is_file() for path in lines[-2:])
    for name in names:
        (log,) = (tmp_path / 'runs' / name).glob('*/*.log')
        assert 'mIoU' in log.read_text()


def check_ious(config, paths, tmp_path, rows):
    models = [(config.model.teacher.config, str(tmp_path / 'teacher.pth'))]
    models += [(config.model.student, path) for path in paths.values()]
    for column, (model, path) in enumerate(models):
        wanted = iou_by_hand(config, model, path)
        for name, value in wanted.items():
            assert rows[name][column] == (None if np.isnan(value) else pytest.approx(value)), name
        assert rows['mIoU'][column] == pytest.approx(np.nanmean(list(wanted.values())), abs=0.006)
    assert any(None in row for row in rows.values())  # classes that nobody saw
    assert rows['mIoU'][0] != rows['mIoU'][1] != rows['mIoU'][2]


def run_tool(argv):
    before = sys.argv
    sys.argv = [str(TOOL), *argv]
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    finally:
        sys.argv = before


def test_detector_class_by_class(tmp_path, weights):
    """A teacher named by its run, as in the configs of this repository; who visits sees it all."""
    config = config_of('retinanet', tmp_path, weights)
    run = tmp_path / 'run'
    run.mkdir()
    Path(config.model.teacher.checkpoint).rename(run / 'best_mAP.pth')
    source = recipe('retinanet', tmp_path / 'data', run, config.model.teacher.config)
    source.dump(str(tmp_path / 'teacher.py'))
    config.model.teacher.update(config=str(tmp_path / 'teacher.py'), checkpoint='best')
    students, seen = dict(plain=weights('plain', 'retinanet', 0)), {}
    found = compare(config, students, str(tmp_path / 'compare'), seen.setdefault)
    assert found.columns == list(seen) == ['teacher', 'plain'] and 'bbox_mAP' in found.rows
    assert found.classes == list(config.test_dataloader.dataset.metainfo['classes'])
    channels = [model.backbone.conv1.out_channels for model in seen.values()]
    assert channels[0] > channels[1]
    assert found.notes[0].startswith('Costs are of the first test image alone (64 x 96 pixels)')


def test_a_plain_config_has_no_teacher(tmp_path, weights):
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('a', 'b'))}
    config = recipe('pspnet', tmp_path / 'data', tmp_path / 'runs')
    found = compare(config, paths, str(tmp_path / 'compare'))
    assert found.cells()[0] == ['', 'a', 'b', 'b - a']


def test_of_several_processes_one_measures_and_draws(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(comparison, 'is_main_process', lambda: False)
    config = recipe('retinanet', tmp_path / 'data', tmp_path / 'runs')
    paths = dict(plain=weights('plain', 'retinanet', 0))
    found = compare(config, paths, str(tmp_path / 'compare'), lambda *_: pytest.fail('drawn twice'))
    assert 'bbox_mAP' in found.rows and not found.costs and not found.notes


@pytest.mark.parametrize(
    ('ask', 'message'),
    [
        (lambda: parse_students(['plain.pth']), "NAME=CHECKPOINT, found 'plain.pth'"),
        (lambda: parse_students(['=plain.pth']), 'NAME=CHECKPOINT'),
        (lambda: parse_students(['a=1.pth', 'a=2.pth']), "two students 'a'"),
        (lambda: form_of('table.xls'), r'\.md, \.csv or \.json'),
    ],
)
def test_bad_arguments(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
    assert parse_students(['a=1.pth', 'b=x=2.pth']) == dict(a='1.pth', b='x=2.pth')
    assert [form_of(f'x/table{form}') for form in ('.md', '.csv')] == ['.md', '.csv']


def test_what_is_refused_before_anything_is_scored(tmp_path, weights):
    config = config_of('pspnet', tmp_path, weights)
    folder = tmp_path / 'compare'

    def refused(kind, message, given=config, **students):
        with pytest.raises(kind, match=message):
            compare(given, students, str(folder))

    refused(ValueError, 'needs a student')
    blind = copy.deepcopy(config)
    blind.pop('test_evaluator')
    refused(ValueError, 'no test_evaluator. Write test_evaluator = val_evaluator', blind, a='a')
    refused(ValueError, "'teacher' is the config's own teacher", teacher='x.pth')
    refused(FileNotFoundError, 'plain: there is no checkpoint nowhere.pth', plain='nowhere.pth')
    plain = weights('plain', 'pspnet', 0)
    other = weights('other', 'pspnet', 0, decode_head=dict(num_classes=11))
    wrong = r'(?s)cwd: .* does not fit .*conv_seg.weight \(file \(11, .*number of classes'
    refused(ValueError, wrong, plain=plain, cwd=other)
    untrained = config_of('pspnet', tmp_path, weights, teacher='random')
    nowhere = (
        "'teacher' has no weights .*checkpoint='random'.*--cfg-options model.teacher.checkpoint=…"
    )
    refused(ValueError, nowhere, untrained, plain=plain)
    one = untrained.model.teacher
    untrained.model.teacher = dict(big=one, mean=dict(type='mmkd.Ensemble', members=dict(a=one)))
    refused(ValueError, r'--cfg-options model\.teacher\.big\.checkpoint=…', untrained, plain=plain)
    untrained.model.teacher.pop('big')
    nowhere = r"'mean\.a' has no .* model\.teacher\.mean\.members\.a\.checkpoint=…"
    refused(ValueError, nowhere, untrained, plain=plain)
    assert not folder.exists()


def test_several_teachers(tmp_path, weights):
    config = config_of('pspnet', tmp_path, weights)
    one = config.model.teacher
    config.model.teacher = dict(large=one, small=dict(one, config=MODELS['pspnet']()))
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('plain', 'kd'))}
    config.model.teacher.small.checkpoint = paths['plain']
    found = compare(config, paths, str(tmp_path / 'compare'))
    assert found.cells()[0] == ['', 'large', 'small', 'plain', 'kd', 'kd - plain']
    del found.rows['latency (ms)']
    assert all(row[1] == row[2] for row in found.rows.values() if row[1] == row[1])
