"""Every method that compares over scales takes a student on half of its teacher's pixels."""

import functools

import pytest
import torch
from cases import (
    BUILT_FOR,
    CLASSIFIERS,
    MODELS_OF,
    SEGMENTORS,
    batch,
    build,
    lively,
    method,
    pairs,
    terms,
    total,
)

from mmkd.families import two_stage
from mmkd.options import options_of
from mmkd.rows import predictions
from mmkd.scales import Rescale
from mmkd.tap import Trace
from mmkd.teacher import Teacher, build_model

HALVES = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.Rescale', scale=0.5)]))
#: maps of a dilated backbone's stage have no partner, so that a method needs other networks
NOT_HERE = {'CIRKDMemory'}


def one_family_each():
    """(method, family), for those that listen to a teacher and build a student of their own."""
    found = {}
    for name, family in pairs():
        if method(name).needs_teacher and name not in {*BUILT_FOR, *NOT_HERE}:
            found.setdefault(name, family)
    return list(found.items())


COMPARES = [pair for pair in one_family_each() if method(pair[0]).over_scales]
REFUSES = [pair for pair in one_family_each() if not method(pair[0]).over_scales]


@functools.cache
def halving(family):
    """Student on half of the size, and teacher; tests must not change them."""
    torch.manual_seed(0)
    student, teacher = (
        build_model(MODELS_OF[family](width=w, **more)) for w, more in ((4, HALVES), (8, {}))
    )
    for model in (student, teacher):
        lively(model)
    return student.train(), Teacher(teacher, checkpoint='random')


def halved(family):
    size = (64, 96) if family in CLASSIFIERS else (128, 192)
    return Rescale(0.5)(*batch(family, size=size))


def options_for(name, family):
    """Not all levels have a partner half as fine; a segmentor has one map."""
    known, kind = options_of(method(name)), family in (*SEGMENTORS, 'detr')
    if kind and 'resize' in known:
        return dict(resize='student')
    return (
        dict(level_map='common') if 'level_map' in known and name not in ('Mimic', 'FitNet') else {}
    )


def distiller_of(name, family, **options):
    student, teacher = halving(family)
    return build(name, family, student, teacher, **(options or options_for(name, family)))


@pytest.mark.parametrize(('name', 'family'), COMPARES)
def test_a_step(name, family):
    distiller = distiller_of(name, family)
    loss = total(terms(distiller, halved(family)))
    parameters = [p for p in distiller.student.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert loss.isfinite() and any(g is not None and bool(g.any()) for g in grads)


@pytest.mark.parametrize(('name', 'family'), REFUSES)
def test_refusals(name, family, monkeypatch):
    monkeypatch.setattr('mmkd.plan.alternatives.PREDICTIONS', ())
    monkeypatch.setattr('mmkd.plan.alternatives.FEATURES', ('AT',))
    with pytest.raises(ValueError, match=f'{name} compares networks that see the same images'):
        distiller_of(name, family)


def test_what_else_compares_is_offered():
    with pytest.raises(ValueError, match=r'for this pair .* compare predictions.*'):
        distiller_of('CrossKD', 'anchor')


def recorded(distiller, data):
    seen = []
    hook = distiller.objectives['it'].register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    terms(distiller, data)
    hook.remove()
    (trace,) = seen
    assert isinstance(trace, Trace)
    return trace


def test_the_teachers_box_head_judges_the_same_objects():
    trace = recorded(distiller_of('DKD', 'two_stage'), halved('two_stage'))
    rois = trace.student[two_stage.rois_tap(trace.student.model)][0].detach()
    twice = torch.cat((rois[:, :1], 2 * rois[:, 1:]), 1)
    wanted = two_stage.roi_outputs(trace.teacher.model, trace.teacher['neck'], twice)
    found = two_stage.answers(trace)[1]
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize('family', ['anchor', 'two_stage'])
def test_the_teachers_priors_are_the_students(family):
    """Its answers, decoded in the student's image, are what it says in its own, half as large."""
    trace = recorded(distiller_of('Chen2017', family), halved(family))
    teacher = trace.teacher.model
    assert predictions.shared(trace) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    (_, own), (logits, codes) = predictions.answers(trace)
    assert own.shape == codes.shape
    sizes = predictions.sizes_of(trace)
    boxes = predictions.decode(trace.student.model, codes, sizes, None)
    outputs = predictions.head_outputs(teacher, trace.teacher['neck'])
    every = predictions.level_sizes(teacher, outputs)
    upper = {j: every[j] for _, j in predictions.shared(trace)}
    assert list(upper.values()) == list(sizes.values())
    scores, whole = predictions.split(teacher, outputs, upper)
    assert torch.equal(scores, logits)
    torch.testing.assert_close(2 * boxes, predictions.decode(teacher, whole, upper, None))
    labels, used, _ = predictions.targets(trace, 3)
    assert labels.shape == used.shape == logits.shape[:2]


def test_priors_that_differ():
    other = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=6)))
    student = build_model(MODELS_OF['anchor'](width=4, **HALVES, **other))
    teacher = halving('anchor')[1]
    with pytest.raises(ValueError, match=r'Chen2017 over scales needs priors that are the same'):
        build('Chen2017', 'anchor', student, teacher, level_map='common')


def test_a_teacher_and_a_peer_see_different_images():
    from mmkd.distiller import Distiller
    from mmkd.testing import tiny_classifier

    student = tiny_classifier(**HALVES)
    with pytest.raises(ValueError, match='listens to a teacher and to a network that learns'):
        Distiller(
            student,
            dict(it=dict(type='mmkd.EnDD', teacher_name=['teacher', 'other'])),
            teacher=dict(config=tiny_classifier(8), checkpoint='random'),
            peers=dict(other=tiny_classifier(8)),
        )
