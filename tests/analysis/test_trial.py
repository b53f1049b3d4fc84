"""Two real steps of what a plan says fits."""

import torch

from mmkd.analysis.batches import random_batch
from mmkd.analysis.fits import MethodFit, Pair
from mmkd.analysis.trial import try_steps
from mmkd.objective import PairObjective
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_pspnet, tiny_retinanet


def pair_of(student, teacher):
    torch.manual_seed(0)
    return Pair(build_model(student), Teacher(teacher, 'random'))


def test_two_steps_do_what_the_plan_says():
    pair = pair_of(tiny_pspnet(4), tiny_pspnet(8))
    fits = list(pair.fits(['CWD', 'KD', 'FGFI']))
    stopped = try_steps(pair, fits, random_batch(pair.student, (64, 64), 2, 2))
    assert stopped == dict(CWD='', KD='')


def test_a_method_that_stops_the_run_is_named_and_the_others_go_on(monkeypatch):
    pair = pair_of(tiny_retinanet(4), tiny_retinanet(8))
    fits = [
        MethodFit('CWD'),
        MethodFit('AT', dict(student='neck[0]')),
        MethodFit('LD', reason='no'),
    ]
    compare = PairObjective.tensor_pairs
    monkeypatch.setattr('mmkd.methods.cwd.CWD.compare', lambda *a: a[5])
    stopped = try_steps(pair, fits, random_batch(pair.student, (64, 64), 2, 2))
    assert stopped['CWD'].startswith('IndexError') and stopped['AT'] == ''
    assert compare is PairObjective.tensor_pairs
