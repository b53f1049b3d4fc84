"""Class scores of a student that knows more than its teacher: which, in which order, and background."""

import pytest
import torch

from mmkd.families.class_map import ClassMap, class_map_of
from mmkd.families.comparable import Misfit


def test_scores_of_the_teachers_classes_in_its_order():
    known, maps = ClassMap('KD', [2, 0]), torch.arange(24.0).view(1, 4, 2, 3)
    assert torch.equal(known(maps, 1), maps[:, [2, 0]])
    assert torch.equal(known(maps.movedim(1, -1)), maps.movedim(1, -1)[..., [2, 0]])
    assert class_map_of('KD', None) is None and not known.state_dict()


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_what_the_teacher_does_not_know_is_background_to_it(tau):
    torch.manual_seed(0)
    logits = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)  # 4 classes, background
    found = (ClassMap('KD', [3, 1]).with_background(logits, tau) / tau).softmax(-1)
    p = (logits / tau).softmax(-1)
    wanted = torch.stack((p[:, 3], p[:, 1], p[:, 0] + p[:, 2] + p[:, 4]), -1)
    torch.testing.assert_close(found, wanted)
    assert torch.autograd.gradcheck(ClassMap('KD', [3, 1]).with_background, (logits, tau))


def test_all_classes_in_order_change_nothing():
    logits = torch.randn(6, 4)
    known = ClassMap('KD', range(3))
    torch.testing.assert_close(known.with_background(logits, 2.0), logits)


@pytest.mark.parametrize('places', [[], [1, 1], [-1], [0.5], [True], 3])
def test_places_that_are_none(places):
    with pytest.raises(ValueError, match='KD: class_map|class_map'):
        ClassMap('KD', places)


def test_numbers_of_classes_that_do_not_fit():
    known = ClassMap('KD', [0, 2])
    known.check(student=3, teacher=2, least=2)
    for student, teacher in ((3, 3), (2, 2)):
        with pytest.raises(Misfit, match=r'class_map=\[0, 2\] must have one label below'):
            known.check(student, teacher)
    with pytest.raises(Misfit, match='of which there must be 2'):
        ClassMap('KD', [1]).check(3, 1, least=2)
