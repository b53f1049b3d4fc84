"""Teacher and students side by side, as tools/compare.py shows them."""

import json

import pytest
import torch
from recipes import MODELS, distilled, recipe

from mmkd.evaluation.comparison import Comparison, compare
from mmkd.teacher import build_model


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


def config_of(kind, tmp_path, weights):
    teacher = weights('teacher', kind, 9, width=16)
    return recipe(kind, tmp_path / 'data', tmp_path / 'runs', distilled(kind, teacher))


def test_segmentor_class_by_class(tmp_path, weights):
    config = config_of('pspnet', tmp_path, weights)
    students = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('plain', 'cwd'))}
    found = compare(config, students, str(tmp_path / 'compare'))
    assert found.columns == ['teacher', 'plain', 'cwd']
    assert 'mIoU' in found.rows and 'aAcc' in found.rows
    classes = [key for key in found.rows if key not in ('mIoU', 'aAcc', 'mAcc')]
    assert len(classes) == 19 or len(classes) == 6
    for column in range(3):
        each = torch.tensor([found.rows[key][column] for key in classes])
        assert float(each.nanmean()) == pytest.approx(found.rows['mIoU'][column], abs=0.01)
    header = found.table()[0]
    assert header == ['', 'teacher', 'plain', 'cwd', 'cwd - plain']


def test_detector(tmp_path, weights):
    config = config_of('retinanet', tmp_path, weights)
    config.test_evaluator.classwise = True
    students = dict(plain=weights('plain', 'retinanet', 0))
    found = compare(config, students, str(tmp_path / 'compare'))
    assert found.columns == ['teacher', 'plain'] and 'bbox_mAP' in found.rows


def test_a_table_in_three_forms():
    found = Comparison()
    found.add('teacher', dict(sky=90.0, mIoU=50.0))
    found.add('plain', dict(sky=80.0, mIoU=30.0, top1=0.5))
    found.add('cwd', dict(sky=81.5, mIoU=38.25, top1=0.75))
    assert found.text().splitlines()[2:] == [
        '| sky | 90.00 | 80.00 | 81.50 | +1.50 |',
        '| mIoU | 50.00 | 30.00 | 38.25 | +8.25 |',
        '| top1 | n/a | 0.500 | 0.750 | +0.250 |',
    ]
    assert found.text('.csv').splitlines()[0] == ',teacher,plain,cwd,cwd - plain'
    assert json.loads(found.text('.json'))['rows']['top1'] == [None, 0.5, 0.75]
    with pytest.raises(ValueError, match=r'\.md, \.csv or \.json'):
        found.text('.xls')


def test_what_is_refused(tmp_path, weights):
    config = config_of('pspnet', tmp_path, weights)
    with pytest.raises(ValueError, match='needs a student'):
        compare(config, {}, str(tmp_path))
    with pytest.raises(ValueError, match="'teacher' is the config's own"):
        compare(config, dict(teacher='x.pth'), str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no checkpoint nowhere.pth'):
        compare(config, dict(plain='nowhere.pth'), str(tmp_path))
    other = weights('other', 'pspnet', 0, width=4)
    with pytest.raises(ValueError, match='does not fit'):
        compare(config, dict(plain=other), str(tmp_path / 'compare'))
