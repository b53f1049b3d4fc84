"""FusedTeacher: both sizes of an image, fused by the gate of a file."""

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.scales import HalfScale, pixels_at
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import FusedTeacher
from mmkd.teachers.kinds import frozen_networks
from mmkd.testing import detection_batch, tiny_pspnet, tiny_retinanet

HALVES = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.HalfScale')]))
FUSION = dict(fusion=dict(type='mmkd.ScaleFusion'))


@pytest.fixture
def trained(tmp_path):
    """A file as a run with ScaleFusion writes it, and that run's networks."""
    torch.manual_seed(0)
    distiller = Distiller(tiny_retinanet(4), FUSION)
    file = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=distiller.state_dict(), meta={}), file)
    return distiller, str(file)


def student_of(teacher, **objective):
    options = dict(type='mmkd.FitNet', student='neck', resize=None, variant='l1') | objective
    return Distiller(tiny_retinanet(4, **HALVES), dict(msad=options), teacher).train()


def test_it_shows_what_the_trained_gate_fuses(trained):
    distiller, file = trained
    teacher = FusedTeacher(tiny_retinanet(4), file)
    inputs, _ = detection_batch(2, (128, 192))
    student, gate = distiller.student.eval(), distiller.objectives['fusion'].gate
    with torch.no_grad():
        high, low = (student.extract_feat(x) for x in (inputs, pixels_at(inputs, (64, 96))))
        wanted = gate.fuse(high, low, 1)
        found = teacher.model.extract_feat(inputs)
    assert all(map(torch.equal, found, wanted))
    assert 'fused with images of half the side' in teacher.loaded
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_a_closed_gate_is_the_plain_teacher(trained, monkeypatch):
    _, file = trained
    fused, plain = FusedTeacher(tiny_retinanet(4), file), Teacher(tiny_retinanet(4), file)
    open_one = lambda high, low: torch.tensor([[1.0, 0]] * len(high))  # noqa: E731
    monkeypatch.setattr(fused.model.neck.gate, 'weights', open_one)
    inputs, _ = detection_batch(1, (128, 192))
    with torch.no_grad():
        pair = fused.model.extract_feat(inputs), plain.model.extract_feat(inputs)
    for found, wanted in zip(*pair, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_student_on_half_the_pixels_learns_from_it(trained):
    _, file = trained
    teacher = dict(type='mmkd.FusedTeacher', config=tiny_retinanet(4), checkpoint=file)
    distiller = student_of(teacher, level_map='common', adapt=None)
    assert distiller.objectives['msad'].pairs == [(0, 1), (1, 2), (2, 3), (3, 4)]
    inputs, samples = HalfScale()(*detection_batch(2, (128, 192)))
    losses = distiller.loss(inputs, samples)
    losses['kd.msad.loss'].backward()
    assert losses['kd.msad.loss'] > 0
    assert frozen_networks(teacher)['teacher'] is teacher


def test_sides_that_do_not_halve(trained):
    _, file = trained
    teacher = FusedTeacher(tiny_retinanet(4), file)
    maps = teacher.model.backbone(torch.randn(1, 3, 65, 97))
    assert maps[0].shape[2:] == (17, 25) and maps[4].shape[2:] == (9, 13)


def test_other_files_are_refused(trained, tmp_path):
    plain = tmp_path / 'plain.pth'
    torch.save(dict(state_dict=build_model(tiny_retinanet(4)).state_dict(), meta={}), plain)
    with pytest.raises(ValueError, match='plain.pth has no gates'):
        FusedTeacher(tiny_retinanet(4), str(plain))
    with pytest.raises(ValueError, match='but PSPNet|but EncoderDecoder'):
        FusedTeacher(tiny_pspnet(4), 'random')
    distiller, _ = trained
    state = distiller.state_dict()
    state['objectives.fusion.gate.squeeze.weight'] = torch.zeros(1, 20)
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=state, meta={}), other)
    with pytest.raises(ValueError, match='is for 10 channels, but the neck gives 8'):
        FusedTeacher(tiny_retinanet(4), str(other))


def test_random_weights():
    teacher = FusedTeacher(tiny_retinanet(4), 'random')
    assert int(teacher.model.neck.gate.shift) == 1 and 'RANDOM WEIGHTS' in teacher.loaded
