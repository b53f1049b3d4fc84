"""One batch through a Distiller without training."""

import copy

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.methods.cwd import CWD
from mmkd.methods.kd import KD
from mmkd.methods.lsr import LSR
from mmkd.plan.recording import load_student, record
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, class_labels, pixels


@pytest.fixture
def distiller():
    torch.manual_seed(0)
    objectives = dict(cwd=CWD(student='neck', tau=1), kd=KD(), lsr=LSR())
    return Distiller(ToyNet(), objectives, Teacher(ToyNet(6), 'random')).train()


def test_each_objective_gets_its_trace_and_nothing_is_trained(distiller):
    inputs, samples = pixels(), class_labels(torch.arange(2))
    before = copy.deepcopy(distiller.state_dict())
    traces = record(distiller, inputs, samples)
    assert set(traces) == {'cwd', 'kd', 'lsr'}
    assert traces['cwd'].student is traces['kd'].student
    assert traces['cwd'].teacher is traces['kd'].teacher and not traces['lsr'].teachers
    assert len(traces['cwd'].student['neck']) == 2
    assert not traces['kd'].student['head.fc'][0].requires_grad
    assert distiller.training and distiller.student.training
    assert all(torch.equal(v, before[k]) for k, v in distiller.state_dict().items())


def test_a_checkpoint_brings_what_objectives_learned(distiller, tmp_path):
    other = Distiller(ToyNet(), dict(cwd=CWD(student='neck', tau=1)), Teacher(ToyNet(6), 'random'))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'a.pth')
    load_student(distiller, str(tmp_path / 'a.pth'))
    for key, value in other.state_dict().items():
        assert torch.equal(distiller.state_dict()[key], value), key


def test_a_plain_student_is_loaded_and_objectives_stay(distiller, tmp_path):
    student = ToyNet()
    torch.save(dict(state_dict=student.state_dict()), tmp_path / 'a.pth')
    before = copy.deepcopy(distiller.objectives.state_dict())
    load_student(distiller, str(tmp_path / 'a.pth'))
    assert torch.equal(distiller.student.head.fc.weight, student.head.fc.weight)
    assert all(torch.equal(v, before[k]) for k, v in distiller.objectives.state_dict().items())
    load_student(plain := ToyNet(), str(tmp_path / 'a.pth'))
    assert torch.equal(plain.head.fc.weight, student.head.fc.weight)


def test_objectives_of_another_width_are_left_alone(distiller, tmp_path):
    """An adapter for another teacher does not fit; the student's weights do."""
    wider = Teacher(ToyNet(9), 'random')
    other = Distiller(ToyNet(), dict(cwd=CWD(student='neck', tau=1)), wider)
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'a.pth')
    before = copy.deepcopy(distiller.objectives.state_dict())
    load_student(distiller, str(tmp_path / 'a.pth'))
    assert all(torch.equal(v, before[k]) for k, v in distiller.objectives.state_dict().items())
