"""L2Logit: worked numbers, the limit of KD, and targets on the scale of each logit."""

import pytest
import torch
from logit_toys import ZS, ZT, images
from segmentation_toys import ToySegmentor, prepare

from mmkd.functional.logit_distances import soft_kl
from mmkd.methods import l2_logit
from mmkd.methods.l2_logit import L2Logit, half_squared_error
from mmkd.rows import logits
from mmkd.testing import class_labels, label_maps, make_trace


def step(objective, student, teacher):
    labels = class_labels(torch.zeros(len(student)).long())
    trace = make_trace({'head.fc': student}, {'head.fc': teacher}, samples=labels)
    return objective(trace)['loss']


def prepared(**options):
    objective = L2Logit('head.fc', variant='paper', **options)
    objective.kind = 'images'
    objective.register_buffer('moments', torch.zeros(3, 3, dtype=torch.float64))
    return objective


def test_differences_count_in_standard_deviations():
    torch.manual_seed(0)
    objective, scale = prepared(standardise=True), torch.tensor([1.0, 10.0, 100.0])
    batches = [torch.randn(6, 3) * scale + 5 for _ in range(3)]
    for teacher in batches:
        student = teacher + 0.1 * scale
        found = step(objective, student, teacher)
    deviation = torch.cat(batches).std(0, correction=0)
    wanted = half_squared_error(student / deviation, teacher / deviation)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert objective.moments[0].tolist() == [18] * 3


def test_evaluation_learns_nothing_and_a_constant_logit_divides_by_one():
    objective = prepared(standardise=True).eval()
    teacher = torch.ones(4, 3)
    found = step(objective, teacher + 2, teacher)
    assert float(found) == pytest.approx(6.0) and not objective.moments.any()


def test_a_rank_without_rows_takes_part_in_the_sums(monkeypatch):
    """Others would wait for it for ever: pixels of all its images may be unlabelled."""
    calls, nothing = [], torch.zeros(0, 3, requires_grad=True)
    monkeypatch.setattr(l2_logit, 'all_reduce', calls.append)
    monkeypatch.setattr(l2_logit.logits, 'rows', lambda *_: (nothing, nothing.detach(), None))
    objective = prepared(standardise=True)
    loss = step(objective, nothing, nothing)
    assert float(loss.detach()) == 0 and loss.requires_grad
    assert len(calls) == 1 and not objective.moments.any()


def test_worked_numbers():
    assert float(half_squared_error(ZS, ZT)) == pytest.approx(1.75)
    assert float(images(L2Logit())['loss']) == pytest.approx(1.1666667, abs=1e-7)
    assert float(images(L2Logit(variant='paper'))['loss']) == pytest.approx(1.75)
    assert float(half_squared_error(ZS + 1, ZT)) != pytest.approx(1.75), 'it is not shift invariant'


def test_centred_rows_are_the_limit_of_kd_at_high_temperature():
    s, t = (z - z.mean(1, keepdim=True) for z in (ZS, ZT))
    limit = half_squared_error(s, t) / ZS.shape[1]
    assert float(soft_kl(ZS, ZT, 1e4).mean()) == pytest.approx(float(limit), rel=1e-3)


def test_rows_must_be_of_one_size():
    objective = L2Logit()
    prepare(objective, ToySegmentor(), ToySegmentor())
    sides = [{'decode_head.conv_seg': torch.zeros(1, 3, *size)} for size in ((4, 4), (8, 8))]
    with pytest.raises(ValueError, match='differ in size'):
        objective(make_trace(*sides, samples=label_maps(torch.zeros(1, 8, 8).long())))
    assert set(logits.KINDS) == set(L2Logit.families)


def test_options_out_of_range():
    with pytest.raises(ValueError, match='variant must be one of'):
        L2Logit(variant='huber')
