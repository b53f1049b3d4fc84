"""Which objectives need a teacher with classes in the student's order: renumber them, and see."""

import copy

import pytest
import torch
from cases import batch, build, method, networks, pairs, terms
from torch import nn

from mmkd.families.class_heads import compares_classes
from mmkd.teacher import Teacher

CLASSES = 3
# Of most methods it is the same for all families, and one of them is enough.
MIXED = ('CWD', 'GID', 'Mimic', 'QuantMimic')
FIRST = {name: family for name, family in reversed(pairs())}
PAIRS = [
    (name, family)
    for name, family in pairs()
    if method(name).needs_teacher and (name in MIXED or FIRST[name] == family)
]


def renumbered(model: nn.Module) -> nn.Module:
    """A copy that says class k where the model says k + 1."""
    model = copy.deepcopy(model)
    # Rows of each layer: groups, rows of a group before its classes, and rows for each class.
    layout = dict(conv_seg=(1, 0, 1), fc=(1, 0, 1), fc_cls=(1, 0, 1), gfl_cls=(1, 0, 1))
    layout.update(cls_embed=(1, 0, 1))
    layout.update(
        retina_cls=(-1, 0, 1), conv_logits=(1, 0, 1), fc_reg=(1, 0, 4), convs_pred=(-1, 5, 1)
    )
    for path, layer in model.named_modules():
        name = next((part for part in path.split('.')[::-1] if part in layout), None)
        if name is None or 'backbone' in path or ('fc_reg' in path and 'roi_head' not in path):
            continue
        groups, before, each = layout[name]
        for p in layer.parameters(recurse=False):
            rows = len(p) if groups == 1 else before + CLASSES * each
            blocks = p.data.unflatten(0, (-1, rows))
            mine = slice(before, before + CLASSES * each)
            blocks[:, mine] = blocks[:, mine].roll(each, 1)
    return model


@pytest.mark.parametrize(('name', 'family'), PAIRS)
def test_compares_classes_if_their_numbers_matter(name, family):
    student, teacher = networks(family)
    found = []
    for model in (teacher.model, renumbered(teacher.model)):
        torch.manual_seed(0)
        distiller = build(name, family, teacher=Teacher(model, checkpoint='random'))
        found.append(terms(distiller, batch(family)))
    (objective,) = distiller.objectives.values()
    matters = any(not torch.allclose(found[0][k], found[1][k], rtol=1e-5) for k in found[0])
    if name == 'SimKD':  # the student takes over the teacher's classifier, order and all
        matters = True
    assert compares_classes(objective, student, teacher.model) == matters
