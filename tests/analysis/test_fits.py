"""What fits a pair: verdicts, followed advice, and steps that agree with the plan."""

import pytest
import torch

from mmkd.analysis.fits import Pair, advised, first_sentence, table
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_faster_rcnn, tiny_retinanet


def pair_of(student, teacher):
    torch.manual_seed(0)
    return Pair(build_model(student), Teacher(teacher, 'random'))


@pytest.fixture(scope='module')
def mixed():
    """A RetinaNet of strides 8 to 128 under a Faster R-CNN of strides 4 to 64."""
    return pair_of(tiny_retinanet(4), tiny_faster_rcnn(8))


def test_fits_with_options_or_refused(mixed):
    names = ['CWD', 'SP', 'LD']
    cwd, sp, ld = mixed.fits(names)
    assert cwd.options == dict(level_map='common') and cwd.verdict == "fits with level_map='common'"
    assert sp.verdict == 'fits' or sp.options
    assert ld.verdict.startswith('refused: LD needs GFL heads') and ld.reason
    lines = table([ld, cwd, sp]).splitlines()
    assert lines[-1].startswith('LD ') and len(lines) == 3


def test_networks_are_probed_once_for_the_same_places(mixed, monkeypatch):
    mixed.plan('CWD', dict(level_map='common'))
    key, found = next(iter(mixed.probes.known.items()))
    mixed.plan('CWD', dict(student='neck[1:5]', teacher='neck[1:5]', level_map='common'))
    assert mixed.probes.known == {key: found}
    mixed.plan('AT', dict(student='backbone.layer1', teacher='backbone.layer1'))
    again = mixed.probes.known[key]
    assert again is not found
    assert {'neck', 'backbone.layer1'} <= {tap.source for tap in again[0].taps}


@pytest.mark.parametrize(
    ('message', 'wanted'),
    [
        ("set resize='student' or resize='teacher'.", [{'resize': 'student'}, {'resize': 'teacher'}]),
        ("tap student='neck[1:5]', teacher='neck[0:4]'", [dict(student='neck[1:5]', teacher='neck[0:4]')]),
        ("set level_map=[(0, 1), (1, 2)], resize='student'.", [dict(level_map=[(0, 1), (1, 2)], resize='student')]),
        ('set k=3; tau=0.5, found tau=7', [dict(k=3), dict(tau=0.5)]),
        ("such as CWD with student='backbone[3]'", []),
        ('give in_channels= and out_channels=; task_weight=2', []),
    ],
)  # fmt: skip
def test_advice_is_read_from_a_message(message, wanted):
    known = dict.fromkeys(('student', 'teacher', 'resize', 'level_map', 'k', 'tau', 'in_channels'))
    assert advised(message, known) == wanted


def test_the_first_sentence():
    assert first_sentence("objective 'x': KD: 0.5 is small, e.g. 0.1. Try 1.") == (
        'KD: 0.5 is small, e.g. 0.1'
    )
