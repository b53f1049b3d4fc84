"""The page of methods by pairs, its faults, and the pairs."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmkd.analysis.compatibility import faults_of, named_methods, page
from mmkd.config import load_config, resolve
from mmkd.teacher import build_model
from mmkd.testing import tiny_retinanet

TOOL = Path(__file__).parents[2] / 'tools' / 'compatibility.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('compatibility_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(**changes):
    rows = [
        dict(method='CWD', options={}, reason='', advice=[], crash='', step=''),
        dict(method='AT', options=dict(k=1), reason='', advice=[(dict(k=1), '')], crash='', step=''),
        dict(method='LD', options={}, reason='LD no; CWD does', advice=[], crash='', step=None),
    ]  # fmt: skip
    for row in rows:
        row.update(changes.get(row['method'], {}))
    names = dict(student='mmdet::a/s.py', teacher='mmdet::a/t.py')
    return dict(names, size=256, steps=2, fits=rows)


def test_the_page_counts_faults():
    text, faults = page([result(), result()])
    assert faults == [] and '| CWD | ● | ● |' in text and '| AT | ○ | ○ |' in text
    assert '| AT | `k=1` | 1, 2 |' in text and 'Refused on all of these pairs: LD.' in text
    assert 'disagreed 0 times' in text and '4 of 4 combinations' in text


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        (dict(CWD=dict(step='IndexError: x')), 's <- t: CWD fits, but the step says: IndexError: x'),
        (dict(CWD=dict(crash='KeyError: x')), 's <- t: CWD crashes the plan: KeyError: x'),
        (dict(AT=dict(advice=[(dict(k=2), 'AT: No.'), (dict(k=1), '')])), 's <- t: AT: advised k=2, then AT: No'),
        (dict(LD=dict(reason='LD no; AT does'), AT=dict(reason='AT no')), 's <- t: LD: names AT, which is refused: AT no'),
    ],
)  # fmt: skip
def test_faults(changes, fault):
    assert list(faults_of(result(**changes))) == [fault]
    assert page([result(**changes)])[1] == [fault]


def test_methods_that_a_message_names():
    assert named_methods('LD no; CWD and Cwd do, XY too', {'CWD': 1, 'LD': 2}) == ['LD', 'CWD']


def test_students_of_mmkd_are_on_the_page_too():
    text, _ = page([result() | dict(student='mmkd::weak.py'), result()])
    detectors, _, segmentors = text.partition('## Segmentors')
    assert '| 1 | weak | t | 256 |' in detectors and '| 2 | s | t | 256 |' in detectors
    assert not segmentors
    assert '| 1 | s | t |' in page([result() | dict(student='mmseg::a/s.py')])[0]


def test_pairs(tool):
    """Each is there once, of configs that exist, and the recipes of mmkd are among them."""
    assert all(len(pair) == 2 for pair in tool.PAIRS)
    assert len(set(tool.PAIRS)) == len(tool.PAIRS)
    missing = {path for pair in tool.PAIRS for path in pair if not os.path.isfile(resolve(path))}
    assert not missing
    pairs = set(tool.PAIRS)
    for recipe in (
        'dense_kd_yolox_m_s',
        'dense_kd_rtmdet_m_s',
        'mask_kd_cascademaskrcnn_r101_r50',
        'detr_distill_deformable_detr_r101_r50',
        'judged_queries_deformable_detr_frcnn_r101_r50',
        'detr_distill_dino_r101_r50',
        'matched_detections_dino_gfl_r101_r50',
        'matched_masks_mask2former_r101_r50_panoptic',
    ):
        path = f'mmkd::{recipe}.py'
        (student,) = [
            line for line in Path(resolve(path)).read_text().splitlines() if '_base_ =' in line
        ]
        teacher = load_config(path).model.teacher.config
        assert any(one in student and other == teacher for one, other in pairs), recipe


def test_a_pair_of_mmkd(tool, monkeypatch):
    path = 'mmkd::small/mask2former_r18w8_camvid.py'
    monkeypatch.setattr(tool, 'PAIRS', [(path, path)])
    found = tool.try_pair(1, ['MatchedMasks'], 1)
    (fit,) = found['fits']
    assert (found['size'], fit['options'], fit['reason'], fit['step']) == (128, {}, '', '')


@pytest.mark.parametrize(
    ('sides', 'picks', 'wanted'), [(256, False, 128), (256, True, 256), (512, False, 512)]
)
def test_side_of_the_images(tool, sides, picks, wanted):
    plain = SimpleNamespace()
    teacher = SimpleNamespace(model=SimpleNamespace(as_two_stage=picks))
    assert tool.side_of(SimpleNamespace(student=plain, teacher=teacher, size=sides)) == wanted


def test_a_teacher_s_scores_before_training(tool):
    model = build_model(tiny_retinanet(4))
    model.init_weights()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tool.undecided(model)
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ['bbox_head.retina_cls.bias'] and not model.bbox_head.retina_cls.bias.any()
