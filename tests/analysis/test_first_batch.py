"""``plan.py --step``: terms, their gradients at the taps, and what they count."""

import pytest
import torch

from mmkd.analysis.first_batch import report_step
from mmkd.objective import Objective
from mmkd.registry import MODELS
from mmkd.testing import class_labels, pixels


@MODELS.register_module(name='TwiceTheTask')
class TwiceTheTask(Objective):
    """Two times the student's own loss, and a count."""

    taps = ('neck[0]', 'head.fc')
    needs_teacher = False

    def forward(self, trace):
        logits = trace.student['head.fc'][0]
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(2))
        return dict(loss=loss, cells=torch.tensor(7.0))


def test_terms_are_compared_with_the_task_at_each_tap():
    data = dict(inputs=list(pixels()), data_samples=class_labels(torch.arange(2)))
    objectives = dict(twice=dict(type='TwiceTheTask', weight=dict(value=2.0, warmup=0.5)))
    model = dict(type='mmkd.Distiller', student=dict(type='mmkd.ToyNet'), objectives=objectives)
    lines = report_step(MODELS.build(model), data).splitlines()
    assert lines[0].startswith('student: ') and 'loss_cls' in lines[0]
    assert lines[1] == 'objective twice: TwiceTheTask, weight 2'
    task = float(lines[0].split()[1])
    assert float(lines[2].partition(' = ')[2]) == pytest.approx(2 * task, rel=1e-3)
    assert [line.split()[1] for line in lines[3:5]] == ['neck[0]:', 'head.fc:']
    assert all(', 2 x that of the task' in line for line in lines[3:5])
    assert lines[5] == '  logged: kd.twice.cells = 7'


def test_a_student_without_losses_of_its_own():
    data = dict(inputs=list(pixels()), data_samples=class_labels(torch.arange(2)))
    objectives = dict(twice=dict(type='TwiceTheTask'))
    student = dict(type='mmkd.ToyNet')
    model = dict(type='mmkd.Distiller', student=student, objectives=objectives, task_weight=None)
    lines = report_step(MODELS.build(model), data).splitlines()
    assert lines[0] == 'student: no losses of its own'
    assert [line.split()[1] for line in lines[3:5]] == ['neck[0]:', 'head.fc:']
    assert all('the task has none' in line for line in lines[3:5])
