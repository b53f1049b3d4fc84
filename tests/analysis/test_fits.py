"""What fits a pair: verdicts, followed advice, and steps that agree with the plan."""

import pytest
import torch

from mmkd.analysis.batches import random_batch
from mmkd.analysis.compatibility import faults_of, page
from mmkd.analysis.fits import Fit, Pair, advised, first_sentence, table
from mmkd.analysis.trial import try_steps
from mmkd.objective import PairObjective
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_faster_rcnn, tiny_pspnet, tiny_retinanet


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


def test_two_steps_do_what_the_plan_says():
    pair = pair_of(tiny_pspnet(4), tiny_pspnet(8))
    fits = list(pair.fits(['CWD', 'KD', 'FGFI']))
    stopped = try_steps(pair, fits, random_batch(pair.student, (64, 64), 2, 2))
    assert stopped == dict(CWD='', KD='')


def test_a_method_that_stops_the_run_is_named_and_the_others_go_on(monkeypatch):
    pair = pair_of(tiny_retinanet(4), tiny_retinanet(8))
    fits = [Fit('CWD'), Fit('AT', dict(student='neck[0]')), Fit('LD', reason='no')]
    compare = PairObjective.tensor_pairs
    monkeypatch.setattr('mmkd.methods.cwd.CWD.compare', lambda *a: a[5])
    stopped = try_steps(pair, fits, random_batch(pair.student, (64, 64), 2, 2))
    assert stopped['CWD'].startswith('IndexError') and stopped['AT'] == ''
    assert compare is PairObjective.tensor_pairs


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


def result(**changes):
    rows = [
        dict(method='CWD', options={}, reason='', advice=[], crash='', step=''),
        dict(method='AT', options=dict(k=1), reason='', advice=[(dict(k=1), '')], crash='', step=''),
        dict(method='LD', options={}, reason='LD no; CWD does', advice=[], crash='', step=None),
    ]  # fmt: skip
    for row in rows:
        row.update(changes.get(row['method'], {}))
    names = dict(student='mmdet::a/s.py', teacher='mmdet::a/t.py')
    return dict(names, size=256, steps=2, fits=rows)


def test_the_page_counts_faults():
    text, faults = page([result(), result()])
    assert faults == [] and '| CWD | ● | ● |' in text and '| AT | ○ | ○ |' in text
    assert '| AT | `k=1` | 1, 2 |' in text and 'Refused on all of these pairs: LD.' in text
    assert 'disagreed 0 times' in text and '4 of 4 combinations' in text


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        (dict(CWD=dict(step='IndexError: x')), 's <- t: CWD fits, but the step says: IndexError: x'),
        (dict(CWD=dict(crash='KeyError: x')), 's <- t: CWD crashes the plan: KeyError: x'),
        (dict(AT=dict(advice=[(dict(k=2), 'AT: No.'), (dict(k=1), '')])), 's <- t: AT: advised k=2, then AT: No'),
        (dict(LD=dict(reason='LD no; AT does'), AT=dict(reason='AT no')), 's <- t: LD: names AT, which is refused: AT no'),
    ],
)  # fmt: skip
def test_faults(changes, fault):
    assert list(faults_of(result(**changes))) == [fault]
    assert page([result(**changes)])[1] == [fault]
