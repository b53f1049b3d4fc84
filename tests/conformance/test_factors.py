"""Terms that the config switches off are not judged; two outputs are refused where they say nothing."""

import pytest
import torch
from cases import MODELS_OF, batch, build, method, pairs

from mmkd.checks.guard import Guard
from mmkd.plan import Plan
from mmkd.teacher import Teacher, build_model

FACTORS = [
    (name, family, attribute)
    for name, family in pairs()
    if family not in ('detr', 'DABDETR')  # whose only map of 2 x 3 cells holds no background
    for attribute in sorted(set(method(name).term_factors.values()))
]


@pytest.mark.parametrize(('name', 'family', 'attribute'), FACTORS)
def test_a_term_of_factor_0_stops_nothing(name, family, attribute):
    distiller = build(name, family)
    objective = distiller.objectives['it']
    owner, _, item = attribute.partition('.')
    if item:
        getattr(objective, owner)[item] = 0.0
    else:
        setattr(objective, owner, 0.0)
    off = [key for key in method(name).term_factors if not objective.factor_of(key)]
    assert off
    distiller.guard = Guard(steps=1)
    losses = distiller.loss(*batch(family))
    found = [key for key in off if f'kd.it.{key}' in losses]
    # Some terms are not there at all where they count nothing.
    assert found or 'second_' in str(off) or name in ('LogitStandardization', 'CascadeSelf')
    assert distiller.guard.seen == {'it': 1}
    assert all(float(losses[f'kd.it.{key}'].detach()) == 0 for key in found)


@pytest.mark.parametrize(
    ('name', 'family', 'classes', 'options'),
    [
        ('DKD', 'two_stage', 1, dict(beta=0)),
        ('DKD', 'classifier', 2, dict(beta=0)),
        ('PRDKD', 'two_stage', 1, dict(beta=0)),
        ('PRDKD', 'segmentor', 2, dict(beta=0)),
        ('LogitStandardization', 'two_stage', 1, None),
        ('LogitStandardization', 'segmentor', 2, None),
        ('TSD', 'two_stage', 1, None),
        ('LD', 'GFL', 1, dict(factors=dict(classes=0))),
    ],
)
def test_two_outputs_are_refused_where_they_say_nothing(name, family, classes, options):
    student, teacher = (
        build_model(MODELS_OF[family](width=w, num_classes=classes)) for w in (4, 8)
    )

    def plan(**chosen):
        teachers = {'teacher': Teacher(teacher, 'random')}
        return Plan(student, teachers, {'it': method(name)(**chosen)}).prepare()

    with torch.no_grad(), pytest.raises(ValueError, match=f'{name}.*(two|one|over one)'):
        plan()
    if options:
        assert plan(**options).seen
