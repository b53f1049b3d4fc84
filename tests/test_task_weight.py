"""Factors of the student's own losses."""

import pytest
import torch

from mmkd.task_weight import check_known, check_number_or_mapping, factor_of, scale_task

X = torch.ones(())
LOSSES = dict(loss_cls=X, loss_bbox=[X, X], acc=X)


def test_a_number_scales_every_loss_and_nothing_else():
    assert scale_task(LOSSES, 0.5) == dict(loss_cls=0.5, loss_bbox=[0.5, 0.5], acc=1)
    assert scale_task({}, 0.5) == {}


def test_parts_of_names_in_any_case():
    assert scale_task(LOSSES, {'CLS': 0, 'bbox': 2.0, 'acc': 3}) == dict(
        loss_cls=0, loss_bbox=[2, 2], acc=1
    )
    assert factor_of({'loss': 0.5, 'cls': 2.0}, 'loss_cls') == 0.5, 'the first that fits'
    assert factor_of({'cls': 2.0}, 'loss_bbox') == 1


def test_a_factor_of_1_leaves_the_very_tensors_alone():
    same = scale_task(LOSSES, 1.0)
    assert all(same[key] is value for key, value in LOSSES.items())


def test_what_is_no_weight():
    assert check_number_or_mapping(0) == 0
    assert check_number_or_mapping({'cls': 2}) == {'cls': 2}
    assert check_number_or_mapping(None) is None, 'not computed'
    for weight in (-1, '1', {'a': -1}, {'a': None}):
        with pytest.raises(ValueError, match='task_weight'):
            check_number_or_mapping(weight)
    with pytest.raises(TypeError, match='keys are parts of the names of losses, found 3'):
        check_number_or_mapping({3: 1.0})


def test_a_part_of_no_name_is_refused():
    check_known(2.0, LOSSES)
    check_known({'BBOX': 1, 'loss_cls': 2}, LOSSES)
    with pytest.raises(
        ValueError, match="contains 'loss_clz', 'acc'; it has loss_cls, loss_bbox. Did"
    ):
        check_known({'loss_clz': 1, 'cls': 1, 'acc': 1}, LOSSES)
