"""Teacher and students side by side, as tools/compare.py shows them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import MODELS, distilled, recipe

from mmkd.analysis.comparison import Comparison, compare, form_of, parse_students
from mmkd.analysis.per_class import report_classes
from mmkd.teacher import build_model

TOOL = Path(__file__).parents[2] / 'tools' / 'compare.py'


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


def test_segmentor_class_by_class(tmp_path, weights):
    """From the command to the file; IoU as counted by hand, for the teacher's own network, too."""
    config = config_of('pspnet', tmp_path, weights)
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('plain', 'cwd'))}
    config.dump(str(tmp_path / 'config.py'))
    out = tmp_path / 'new' / 'table.json'
    students = [f'--student={name}={path}' for name, path in paths.items()]
    argv = [str(tmp_path / 'config.py'), *students, f'--out={out}', f'--work-dir={tmp_path}/runs']
    run_tool(argv)
    found = json.loads(out.read_text())
    assert found['columns'] == ['teacher', 'plain', 'cwd']
    rows = found['rows']
    assert list(rows)[-3:] == ['aAcc', 'mIoU', 'mAcc'] and len(rows) == 19 + 3
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
    config = config_of('retinanet', tmp_path, weights)
    students = dict(plain=weights('plain', 'retinanet', 0))
    found = compare(config, students, str(tmp_path / 'compare'))
    assert found.columns == ['teacher', 'plain'] and 'bbox_mAP' in found.rows
    assert set(config.test_dataloader.dataset.metainfo['classes']) < set(found.rows)


def test_a_plain_config_has_no_teacher(tmp_path, weights):
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('a', 'b'))}
    config = recipe('pspnet', tmp_path / 'data', tmp_path / 'runs')
    found = compare(config, paths, str(tmp_path / 'compare'))
    assert found.table()[0] == ['', 'a', 'b', 'b - a']


def test_average_precision_of_each_class():
    """One class found, one found half, one missed, one without objects."""
    from mmdet.evaluation.metrics import VOCMetric

    metric = VOCMetric(iou_thrs=[0.5, 0.9], eval_mode='area')
    metric.dataset_meta = dict(classes=('cat', 'dog', 'owl', 'elk'))
    report_classes([metric])
    boxes = np.array([[0, 0, 9, 9], [20, 20, 39, 39], [50, 50, 69, 69]], np.float32)
    nothing = dict(bboxes_ignore=np.zeros((0, 4)), labels_ignore=np.zeros(0, int))
    scored = np.hstack([boxes, [[0.9], [0.8], [0.7]]])
    scored[1, 2] -= 4  # IoU 0.8
    detections = [scored[:1], scored[1:2], scored[:0], scored[:0]]
    metric.results = [(dict(bboxes=boxes, labels=np.array([0, 1, 2]), **nothing), detections)]
    found = metric.evaluate(1)
    each = [found[f'pascal_voc/{name}'] for name in ('cat', 'dog', 'owl', 'elk')]
    np.testing.assert_allclose(each, [1, 0.5, 0, np.nan], atol=1e-6)
    assert found['pascal_voc/mAP'] == pytest.approx(np.nanmean(each), abs=1e-6)


def test_other_metrics_are_left_alone():
    from mmdet.evaluation.metrics import VOCMetric

    from mmkd.evaluation import Accuracy

    for metric in (Accuracy(), VOCMetric(metric='recall')):
        report_classes([metric])
        assert 'compute_metrics' not in vars(metric)


def test_a_table_in_three_forms():
    found = Comparison(teachers=1)
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


def test_a_difference_with_nothing_is_not_a_number():
    found = Comparison()
    found.add('plain', dict(owl=1.0))
    found.add('cwd', dict(elk=2.0))
    assert found.table()[1:] == [
        ['owl', '1.000', 'n/a', 'n/a'],
        ['elk', 'n/a', '2.00', 'n/a'],
    ]


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
    refused(ValueError, "'teacher' is the config's own teacher", teacher='x.pth')
    refused(FileNotFoundError, 'plain: there is no checkpoint nowhere.pth', plain='nowhere.pth')
    plain = weights('plain', 'pspnet', 0)
    other = weights('other', 'pspnet', 0, decode_head=dict(num_classes=11))
    wrong = r'(?s)cwd: .* does not fit .*conv_seg.weight \(file \(11, .*number of classes'
    refused(ValueError, wrong, plain=plain, cwd=other)
    untrained = config_of('pspnet', tmp_path, weights, teacher='random')
    refused(ValueError, "'teacher' has no weights .*checkpoint='random'", untrained, plain=plain)
    assert not folder.exists()


def test_several_teachers(tmp_path, weights):
    config = config_of('pspnet', tmp_path, weights)
    one = config.model.teacher
    config.model.teacher = dict(large=one, small=dict(one, config=MODELS['pspnet']()))
    paths = {name: weights(name, 'pspnet', seed) for seed, name in enumerate(('plain', 'kd'))}
    config.model.teacher.small.checkpoint = paths['plain']
    found = compare(config, paths, str(tmp_path / 'compare'))
    assert found.table()[0] == ['', 'large', 'small', 'plain', 'kd', 'kd - plain']
    assert all(row[1] == row[2] for row in found.rows.values() if row[1] == row[1])
