"""Images at the end of a batch that one objective has for itself; CS-KD's tests train with them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd.held_back import hold_back, look_at_held
from mmkd.schedule import Progress
from mmkd.tap import Recorder, parse_taps


def parts(**counts):
    """Objectives that hold back so many images each."""
    return {
        name: SimpleNamespace(held_back=lambda samples, count=count: count)
        for name, count in counts.items()
    }


def test_the_last_images_are_held_back():
    inputs, samples = torch.rand(5, 3, 8, 8), list('abcde')
    rest, own, held = hold_back(parts(a=2, b=0), ['a', 'b'], inputs, samples)
    assert torch.equal(rest, inputs[:3]) and own == list('abc')
    assert list(held) == ['a']
    assert torch.equal(held['a'][0], inputs[3:]) and held['a'][1] == list('de')


def test_nobody_holds_back():
    inputs, samples = torch.rand(2, 3, 8, 8), list('ab')
    for objectives, active in ((parts(a=0), ['a']), (parts(a=2), [])):
        rest, own, held = hold_back(objectives, active, inputs, samples)
        assert rest is inputs and own is samples and held == {}


def test_two_at_a_time_are_refused():
    with pytest.raises(ValueError, match='a, b each take images at the end of the batch'):
        hold_back(parts(a=1, b=1), ['a', 'b'], torch.rand(4, 3, 8, 8), list('abcd'))


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.norm(inputs)


@pytest.mark.parametrize('moves', [True, False])
def test_they_are_looked_at_in_the_present_mode_without_gradients(moves):
    student, taps = Student().train(), parse_taps('norm')
    objective = SimpleNamespace(moves_statistics=moves, student_taps=taps)
    distiller = SimpleNamespace(
        student=student, objectives=dict(a=objective), recorder=Recorder(student, taps)
    )
    batch = torch.rand(4, 3, 8, 8) + 2
    trace = look_at_held(distiller, dict(a=(batch, list('abcd'))), Progress(0, 1))['a']
    (found,) = trace.student.seen(taps[0])
    wanted = nn.BatchNorm2d(3)(batch)
    assert torch.allclose(found, wanted) and not found.requires_grad
    assert trace.samples == list('abcd')
    assert bool(student.norm.running_mean.any()) == moves
