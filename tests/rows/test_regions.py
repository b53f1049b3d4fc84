"""Regions that may hold objects, out of what a step has anyway."""

import pytest
import torch
from detection_toys import detector, samples, step

from mmkd.families import two_stage
from mmkd.families.comparable import Misfit
from mmkd.methods.mimic import Mimic
from mmkd.rows.regions import default_source, region_taps
from mmkd.teacher import build_model
from mmkd.testing import tiny_yolov3


def seen(student, teacher, source, batch=None, count=6, **options):
    """Regions of one step with an objective that asks for them."""
    objective = Mimic(proposal_source=source, proposals=count, adapt=None, **options)
    _, trace = step(objective, student, teacher, batch)
    return objective.regions.of(trace), trace


def test_the_ground_truth():
    found, _ = seen(detector('retinanet'), detector('retinanet', 1), 'gt')
    boxes = torch.tensor([[8.0, 8, 48, 56], [30, 20, 90, 72]])
    wanted = torch.cat((boxes, boxes + 3))
    assert torch.equal(found, torch.cat((torch.tensor([[0.0], [0], [1], [1]]), wanted), 1))
    found, _ = seen(detector('retinanet'), detector('retinanet', 1), 'gt', samples((0, 1)))
    assert found.shape == (0, 5)


@pytest.mark.parametrize('source', ['student', 'teacher'])
@pytest.mark.parametrize('name', ['frcnn', 'retinanet', 'fcos'])
def test_regions_of_a_network(name, source):
    found, _ = seen(detector(name), detector(name, 1), source)
    counts = torch.bincount(found[:, 0].long(), minlength=2)
    assert counts.min() > 0 and counts.max() <= 6
    assert (found[:, 3:] > found[:, 1:3]).all() and not found.requires_grad


def test_sampled_rois_are_thinned_out_evenly():
    student = detector('frcnn')
    found, trace = seen(student, detector('frcnn', 1), 'student', count=5)
    rois = trace.student[two_stage.rois_tap(student)][0]
    wanted = []
    for image in (0, 1):
        own = rois[rois[:, 0] == image]
        count = len(own)
        wanted += [own[i] for i in range(count) if i * 5 // count < (i + 1) * 5 // count]
    assert len(wanted) == 10 and torch.equal(found, torch.stack(wanted))


def test_a_share_of_foreground():
    student = detector('frcnn')
    found, trace = seen(student, detector('frcnn', 1), 'student', count=8, fg_fraction=0.25)
    rois, labels = trace.student[two_stage.rois_tap(student)][0], two_stage.targets(trace)[0]
    for image in (0, 1):
        own = found[found[:, 0] == image]
        kept = (rois[:, None] == own).all(-1).any(1) & (rois[:, 0] == image)
        assert 0 < int((labels[kept] < 3).sum()) <= 2, 'a quarter of eight'


@pytest.mark.parametrize(
    ('name', 'source'), [('frcnn', 'student'), ('gfl', 'student'), ('yolo', 'gt')]
)
def test_the_default_source(name, source):
    model = build_model(tiny_yolov3(4)) if name == 'yolo' else detector(name)
    assert default_source(model) == source


def test_what_has_to_be_seen():
    frcnn, retina = detector('frcnn'), detector('retinanet')
    assert region_taps('Mimic', 'gt', retina, retina) == ((), ())
    student, teacher = region_taps('Mimic', 'teacher', retina, frcnn)
    assert not student and [str(tap) for tap in teacher] == ['neck']
    student, teacher = region_taps('Mimic', 'student', frcnn, retina)
    assert str(student[0]) == 'roi_head.bbox_roi_extractor@in[1]' and not teacher
    yolo = build_model(tiny_yolov3(4))
    with pytest.raises(Misfit, match='Mimic decodes boxes of the student'):
        region_taps('Mimic', 'student', yolo, frcnn)
