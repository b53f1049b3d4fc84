"""Unusual but good input of every method for segmentors: two classes, odd sizes, ignored images."""

import inspect

import pytest
import torch
from cases import DENSITIES, method, total
from segmentation_toys import make_step, prepare, samples_of, toy_for

from mmkd.methods import names
from mmkd.tap import Side, Trace

EVERY = [n for n in names() if 'segmentor' in method(n).families and method(n).needs_teacher]
#: look at all pixels, whatever their label
UNMASKED = {'BPKD', 'CIRKD', 'CSCACE', 'EnDD', 'FeatureFusion', 'GradientRegions', 'KA'}
UNMASKED |= {'SKDHolistic', 'SKDPair'}
#: have noise, choose pixels at random, or have weights that know up from down
ORIENTED = {'CIRKDMemory', 'KA', 'MatchedMasks', 'MGD', 'NoisyTeacher', 'SKDHolistic'}
#: what two classes need, as the refusal without it says
OF_TWO = {'PRDKD': dict(beta=0)}
ODD = (37, 53)  # 5 x 7 cells


def regions(classes, size=(32, 48)):
    """(2, H, W): a few regions an image; in pixels at random, classes would all be alike."""
    y, x = torch.meshgrid(*(torch.arange(n) / n for n in size), indexing='ij')
    first = (x * classes).long()
    return torch.stack([first, (first + (y * 2).long()) % classes])


def options(name):
    """What makes a method leave out ignored pixels."""
    return (
        dict(mask_ignore=True)
        if 'mask_ignore' in inspect.signature(method(name)).parameters
        else {}
    )


def sign(name):
    return -1 if name in DENSITIES else 1


def built(name, classes=3, **chosen):
    """A fresh objective with two toys, all of them the same in every call."""
    torch.manual_seed(0)
    pair = toy_for(name, 4, classes).eval(), toy_for(name, 6, classes)
    return prepare(method(name)(**chosen), *pair), pair


def learn(objective, trace):
    """The loss and its gradient at the student's taps."""
    torch.manual_seed(1)
    loss = total(objective(trace))
    seen = [x for tap in objective.student_taps for x in trace.student[tap]]
    return loss.detach(), torch.autograd.grad(loss, seen)


@pytest.mark.filterwarnings('ignore:DIST')  # it has one term less
@pytest.mark.parametrize('name', sorted(set(EVERY) - {'LogitStandardization'}))
def test_two_classes(name):
    objective, pair = built(name, 2, **OF_TWO.get(name, {}))
    loss, gradients = learn(objective, make_step(objective, *pair, labels=regions(2)))
    assert loss.isfinite() and sign(name) * loss > 0
    assert all(g.isfinite().all() and g.any() for g in gradients)


@pytest.mark.parametrize('name', ['LogitStandardization', *OF_TWO])
def test_two_classes_are_refused_where_they_leave_nothing(name):
    with pytest.raises(ValueError, match='Use KD for two classes|set beta=0'):
        built(name, 2)


@pytest.mark.parametrize('name', EVERY)
def test_odd_sizes(name):
    objective, pair = built(name)
    trace = make_step(objective, *pair, ODD, regions(3, ODD))
    loss, gradients = learn(objective, trace)
    assert loss.isfinite() and sign(name) * loss > 0
    assert all(g.isfinite().all() and g.any() for g in gradients)
    assert {tuple(g.shape[2:]) for g in gradients if g.dim() == 4} == {(5, 7)}


@pytest.mark.parametrize('name', sorted(set(EVERY) - ORIENTED))
def test_height_and_width_are_alike(name):
    """The same step with rows and columns exchanged has the same loss."""
    objective, pair = built(name, **options(name))
    trace = make_step(objective, *pair, ODD, regions(3, ODD))
    sides = [
        Side(side.model, side.inputs.mT, {k: _turned(v) for k, v in side.calls.items()})
        for side in (trace.student, trace.teacher)
    ]
    labels = torch.stack([sample.gt_sem_seg.data[0].mT for sample in trace.samples])
    turned = Trace(trace.inputs.mT, samples_of(labels), *sides)
    loss, gradients = learn(objective, trace)
    again, others = learn(built(name, **options(name))[0], turned)
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-7)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other.mT, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def _turned(value):
    if isinstance(value, torch.Tensor):
        return value.mT
    return [_turned(item) for item in value]


@pytest.mark.parametrize('name', EVERY)
def test_an_image_of_ignored_pixels(name):
    """It teaches nothing; where every image is such a one, the loss is 0 and keeps its graph."""
    objective, pair = built(name, **options(name))
    objective.eval()  # BatchNorms of its own would mix images
    labels = regions(3)
    labels[1] = 255
    loss, gradients = learn(objective, make_step(objective, *pair, labels=labels))
    assert loss.isfinite() and sign(name) * loss > 0
    assert all(g.isfinite().all() and g[0].any() for g in gradients)
    assert any(g[1].any() for g in gradients) == (name in UNMASKED)
    labels[:] = 255
    loss, gradients = learn(objective, make_step(objective, *pair, labels=labels))
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)
    assert bool(loss == 0) == (name not in UNMASKED)
