"""``named_taps`` of each method is what the tables say: it works there once taps are named."""

import functools

import pytest
from cases import batch, fresh_teacher, method, networks

from mmkd.distiller import Distiller
from mmkd.families import FAMILIES, family_of
from mmkd.methods import names
from mmkd.teacher import build_model
from mmkd.testing import tiny_retinanet

#: models of cases.py and their families, known without building any of them
MODELS = {
    'two_stage': 'two_stage',
    'anchor': 'anchor',
    'YOLOV3': 'yolo',
    'detr': 'detr',
    'segmentor': 'segmentor',
}
#: two maps of one stride each; methods of one layer take the second
MAPS = {
    'segmentor': ['backbone[2]', 'backbone[3]'],
    'detr': ['backbone.layer2', 'backbone.layer3'],
}
ONE_LAYER = ('FT', 'CCKD', 'DarkRank', 'GKD', 'PKT', 'RKD', 'SP')
OPTIONS = {'IRG': dict(factors=dict(vertex=0))}


def named(model: str) -> list[str]:
    return [name for name in names() if MODELS[model] in method(name).named_taps]


@functools.cache
def losses(model: str) -> dict:
    """One step of all of them together."""
    student, teacher = networks(model)
    assert family_of(student) == MODELS[model]
    maps = MAPS.get(model, ['neck[0]', 'neck[1]'])
    objectives = {
        name: method(name)(student=maps[1] if name in ONE_LAYER else maps, **OPTIONS.get(name, {}))
        for name in named(model)
    }
    distiller = Distiller(student, objectives, fresh_teacher(teacher), preflight=False)
    return distiller.loss(*batch(model))


@pytest.mark.parametrize(('model', 'name'), [(m, n) for m in MODELS for n in named(m)])
def test_works_with_named_taps(model, name):
    loss = sum(v for k, v in losses(model).items() if k.startswith(f'kd.{name}.loss'))
    assert loss.requires_grad and loss.isfinite() and loss > 0


@pytest.mark.parametrize('name', [name for name in names() if method(name).named_taps])
def test_needs_names_there(name):
    assert set(method(name).named_taps) <= set(FAMILIES) - set(method(name).families)
    for model in MODELS:
        if name in named(model):
            student, teacher = networks(model)
            with pytest.raises(ValueError, match=r'tap'):
                Distiller(student, dict(it=method(name)()), fresh_teacher(teacher))


@pytest.mark.parametrize('name', ['FitNet', 'NST', 'VID', 'AB', 'OFD', 'ReviewKD', 'FSP', 'KDSVD'])
def test_other_models_need_taps(name):
    detectors = [build_model(tiny_retinanet(width=4)) for _ in range(2)]
    with pytest.raises(ValueError, match=r'name|tap'):
        method(name)().bind(*detectors)
