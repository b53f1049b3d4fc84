"""A step that never was."""

import torch
from torch import nn

from mmkd.methods.cwd import CWD
from mmkd.schedule import Progress
from mmkd.tap import parse_taps
from mmkd.testing import levels_of, make_trace, ready


def test_tensors_at_taps():
    maps, logits = torch.rand(2, 3, 4, 6), torch.rand(2, 5)
    trace = make_trace({'neck': [maps], 'head.fc': logits}, {'neck': 2 * maps}, progress=0.25)
    assert trace.student['neck'][0] is maps and trace.student['head.fc'][0] is logits
    assert torch.equal(trace.teacher['neck'][0], 2 * maps)
    assert trace.inputs.shape == (2, 3, 32, 48), 'eight pixels a cell of the largest map'
    assert trace.progress == 0.25 and len(trace.samples) == 2
    assert make_trace({'neck': maps}, stride=4).inputs.shape == (2, 3, 16, 24)
    assert make_trace({'neck': maps}).teachers == {}


def test_what_is_given_is_taken():
    inputs, model, progress = torch.zeros(2, 3, 10, 10), nn.Identity(), Progress(3, 9)
    trace = make_trace(
        {'a': torch.rand(2, 4)},
        samples=[1, 2],
        inputs=inputs,
        progress=progress,
        student_model=model,
    )
    assert trace.inputs is inputs and trace.student.model is model
    assert trace.progress is progress and trace.samples == [1, 2]


def test_levels_of_a_side():
    trace = make_trace(
        {'neck': [torch.rand(1, 3, 8, 8), torch.rand(1, 5, 4, 4)], 'b': torch.rand(1, 7)}
    )
    found = levels_of(trace.student, parse_taps(['neck', 'b']))
    assert [(level.channels, level.stride, level.tap) for level in found] == [
        (3, 8, 'neck'),
        (5, 16, 'neck'),
        (7, None, 'b'),
    ]


def test_an_objective_is_set_up_for_a_trace():
    objective = CWD(student='neck', teacher='neck', tau=1)
    trace = make_trace({'neck': torch.rand(2, 3, 4, 4)}, {'neck': torch.rand(2, 6, 4, 4)})
    assert ready(objective, trace) is objective and objective.pairs == [(0, 0)]
    assert objective(trace)['loss'].isfinite()
