"""What an objective is told of scales."""

from fractions import Fraction

import pytest

from mmkd.families.comparable import Misfit
from mmkd.methods.crosskd import CrossKD
from mmkd.methods.pkd import PKD
from mmkd.plan.image_scale import tell_scale
from mmkd.teacher import build_model
from mmkd.testing import tiny_retinanet

AUGMENTS = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.Rescale', scale=2 / 3)]))


def test_the_scale_of_the_students_images():
    student, objective = build_model(tiny_retinanet(4, **AUGMENTS)), PKD()
    tell_scale(objective, student, [False])
    assert objective.image_scale == 1  # what it listens to sees what the student sees
    tell_scale(objective, student, [True])
    assert objective.image_scale == Fraction(2, 3)


def test_without_rescale_nothing_is_asked():
    objective = CrossKD()
    tell_scale(objective, build_model(tiny_retinanet(4)), [True])
    assert objective.image_scale == 1


def test_refusals():
    student = build_model(tiny_retinanet(4, **AUGMENTS))
    with pytest.raises(Misfit, match="CrossKD .* student's to 2/3 of the side"):
        tell_scale(CrossKD(), student, [True])
    with pytest.raises(ValueError, match='Add an objective for each'):
        tell_scale(PKD(), student, [True, False])
