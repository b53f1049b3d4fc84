"""A teacher on a stream of its own: who waits for whom, by a record of what streams are told."""

import contextlib

import pytest
import torch
from distiller_toys import Square, batch, toy

from mmkd import teacher as teacher_module
from mmkd.plan import Plan
from mmkd.streams import SideStream, has_streams
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet


class Stream:
    """Takes down what it is told."""

    device = torch.device('cpu')

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f'{self.name} waits for {other.name}')


class Streams:
    """Stand for CUDA's on a CPU, and keep the order of what they are told."""

    def __init__(self):
        self.log = []
        self.stack = [Stream('main', self.log)]

    @contextlib.contextmanager
    def use(self, stream):
        self.stack.append(stream)
        try:
            yield
        finally:
            self.stack.pop()

    def current(self, device):
        return self.stack[-1]

    def record(self, tensor, stream):
        self.log.append(f'{stream.name} uses {tuple(tensor.shape)}')

    def mark(self, what):
        """A hook that takes down on which stream a module runs."""
        return lambda *_: self.log.append(f'{what} on {self.stack[-1].name}')


@pytest.fixture
def streams(monkeypatch):
    streams = Streams()
    monkeypatch.setattr(torch.cuda, 'Stream', lambda device: Stream('side', streams.log))
    monkeypatch.setattr(torch.cuda, 'stream', streams.use)
    monkeypatch.setattr(torch.cuda, 'current_stream', streams.current)
    monkeypatch.setattr(
        torch.Tensor, 'record_stream', lambda tensor, stream: streams.record(tensor, stream)
    )
    monkeypatch.setattr(teacher_module, 'has_streams', lambda tensor: True)
    return streams


class Marked(Square):
    """Takes down when it computes its loss."""

    streams: Streams

    def compare(self, student, teacher):
        self.streams.log.append('objective')
        return super().compare(student, teacher)


def distiller(streams=None, **options):
    torch.manual_seed(1)
    objective = Square()
    if streams:
        objective = Marked()
        objective.streams = streams
    return toy(dict(s=objective), Teacher(ToyNet(6), checkpoint='random', **options))


def test_the_order_of_a_step(streams):
    model = distiller(streams, stream=True)
    model.student.backbone.register_forward_hook(streams.mark('student'))
    model.teachers['teacher'].model.backbone.register_forward_hook(streams.mark('teacher'))
    model.loss(*batch())
    log = list(dict.fromkeys(streams.log))
    assert log[:5] == [
        'side waits for main',  # for the pixels
        'side uses (2, 3, 64, 96)',  # which are not given away before it has read them
        'teacher on side',
        'student on main',
        'main waits for side',
    ]
    *used, objective = log[5:]
    assert objective == 'objective'
    assert used == ['main uses (2, 3, 64, 96)', 'main uses (2, 6, 8, 12)', 'main uses (2, 6, 4, 6)']


def test_each_step_waits_anew_on_one_stream(streams):
    model = distiller(stream=True)
    for _ in range(3):
        model.loss(*batch())
    assert streams.log.count('side waits for main') == 3 == streams.log.count('main waits for side')
    side = model.teachers['teacher'].side_stream
    model.loss(*batch())
    assert model.teachers['teacher'].side_stream is side


def test_a_call_is_joined_by_itself(streams):
    """As the recording of pictures and traces calls a teacher."""
    model = distiller(stream=True)
    teacher = model.teachers['teacher']
    teacher(*batch(), model.pixels)
    assert streams.log[0] == 'side waits for main' and 'main waits for side' in streams.log


def test_the_clock_of_a_step_sees_the_teacher(streams):
    model = distiller(stream=True)
    model.timer.enabled = True
    model.student.backbone.register_forward_hook(streams.mark('student'))
    model.loss(*batch())
    assert streams.log.index('main waits for side') < streams.log.index('student on main')


def test_a_forward_pass_that_fails_leaves_the_current_stream(streams):
    model = distiller(stream=True)
    with pytest.raises(RuntimeError):
        model.teachers['teacher'](torch.zeros(1, 5, 8, 8), [], model.pixels)
    assert streams.stack[-1].name == 'main'


@pytest.mark.parametrize('compile', [False, True])
def test_losses_are_those_without(streams, monkeypatch, compile):
    monkeypatch.setattr('mmkd.compiled.BACKEND', 'eager')
    options = dict(compile=compile)
    found, wanted = (distiller(stream=s, **options).loss(*batch()) for s in (True, False))
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def test_without_a_gpu_nothing_is_asked_of_streams(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    model = distiller(stream=True)
    model.loss(*batch())
    assert model.teachers['teacher'].side_stream is None
    assert not has_streams(torch.zeros(1))
    assert '  stream: no CUDA device here, so it runs before the' in str(model.plan)
    assert 'stream' not in str(distiller().plan)


def test_the_plan_says_where_it_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    plan = Plan(ToyNet(), dict(t=Teacher(ToyNet(), 'random', stream=True)), dict(s=Square()))
    assert "  stream: beside the student's forward pass, on a CUDA stream" in str(plan)


def test_the_other_way_round(streams):
    """What was made inside is used outside only behind the join."""
    side = SideStream(torch.device('cpu'))
    with side.after([torch.zeros(2)]):
        assert streams.stack[-1].name == 'side'
    side.join([torch.zeros(3), torch.zeros(4)])
    assert streams.log == [
        'side waits for main',
        'side uses (2,)',
        'main waits for side',
        'main uses (3,)',
        'main uses (4,)',
    ]
