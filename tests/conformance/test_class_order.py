"""Which objectives need a teacher with classes in the student's order: renumber them, and see.

And what gives it that order: both networks renumbered, or the teacher's classes found by name.
"""

import copy
import functools

import pytest
import torch
from cases import batch, build, lively, method, networks, pairs, terms
from torch import nn

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.families.class_heads import compares_classes
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.testing import segmentation_batch, shrink, tiny_mask2former, tiny_pspnet

CLASSES = 3
# Of most methods it is the same for all families, and one of them is enough.
MIXED = ('CWD', 'GID', 'Mimic', 'QuantMimic')
FIRST = {name: family for name, family in reversed(pairs())}
PAIRS = [
    (name, family)
    for name, family in pairs()
    if method(name).needs_teacher and (name in MIXED or FIRST[name] == family)
]


NAMES = ('ant', 'bee', 'cow')
SEGMENTER = 'mmseg::segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py'
#: compare logits of pixels, or those of queries, and draw nothing for a class of its own
ON_CLASSES = (
    'KD', 'CWD', 'DIST', 'L2Logit', 'SKDPixel', 'TSL', 'LogitStandardization', 'ESKD', 'WSLD',
    'PRDKD', 'BPKD', 'CSCACE',
)  # fmt: skip


def renumbered(model: nn.Module) -> nn.Module:
    """A copy that says class k where the model says k + 1."""
    model = copy.deepcopy(model)
    # Rows of each layer: groups, rows of a group before its classes, and rows for each class.
    layout = dict(conv_seg=(1, 0, 1), fc=(1, 0, 1), fc_cls=(1, 0, 1), gfl_cls=(1, 0, 1))
    layout.update(cls_embed=(1, 0, 1), mask_norm=(1, 0, 1))
    layout.update(
        retina_cls=(-1, 0, 1), conv_logits=(1, 0, 1), fc_reg=(1, 0, 4), convs_pred=(-1, 5, 1)
    )
    for path, layer in model.named_modules():
        if hasattr(layer, 'cls_emb'):  # of Segmenter, one token a class
            layer.cls_emb.data = layer.cls_emb.data.roll(1, 1)
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
    if name == 'TaskHeads':  # its head, which begins at random, learns any order
        matters = False
    if (
        name == 'DFAD'
    ):  # L1 does not see it where the toys' logits all lie above or below the others
        matters = True
    assert compares_classes(objective, student, teacher.model) == matters


def tiny_segmenter(width: int) -> dict:
    """The head of Segmenter on the backbone of tiny_pspnet, with maps of its size."""
    head = shrink(load_config(SEGMENTER).model.decode_head.to_dict(), 4)
    head.update(num_classes=CLASSES, in_channels=8 * width, channels=8 * width)
    return tiny_pspnet(width) | dict(decode_head=head, auxiliary_head=None)


@functools.cache
def of_masks(kind: str, width: int) -> nn.Module:
    make = dict(Mask2Former=tiny_mask2former, Segmenter=tiny_segmenter, PSPNet=tiny_pspnet)[kind]
    torch.manual_seed(width)
    model = build_model(make(width))
    lively(model)
    with torch.no_grad():  # maps that differ from cell to cell by more than rounding
        for name, p in model.named_parameters():
            if name.endswith(('mask_norm.weight', 'mask_feature.weight')):
                p.mul_(10)
    return model


def step(student: nn.Module, teacher: nn.Module | Teacher, methods: tuple, turned: bool = False):
    """Losses of the methods in one step; labels of ``turned`` networks are those of the others."""
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher, checkpoint='random')
    torch.manual_seed(0)
    options = dict(CSCACE=dict(pool='avg', pool_size=4))
    objectives = {name: method(name)(**options.get(name, {})) for name in methods}
    model = Distiller(student, objectives, teacher, preflight=False).eval()
    inputs, samples = segmentation_batch(2, (64, 96))
    for sample in samples if turned else []:
        found = sample.gt_sem_seg.data
        sample.gt_sem_seg.data = torch.where(found < CLASSES, (found + 1) % CLASSES, found)
    torch.manual_seed(0)
    losses = model.loss(inputs, samples)
    return {k: float(v.detach()) for k, v in losses.items() if k.startswith('kd.') and 'loss' in k}


@pytest.mark.parametrize('kind', ['Mask2Former', 'Segmenter'])
def test_networks_that_are_renumbered_alike_learn_the_same(kind):
    student, teacher = (of_masks(kind, width) for width in (4, 8))
    methods = ON_CLASSES + ('MatchedMasks',) * (kind == 'Mask2Former')
    student_of, teacher_of = (functools.partial(copy.deepcopy, x) for x in (student, teacher))
    wanted = step(student_of(), teacher_of(), methods)
    found = step(renumbered(student), renumbered(teacher), methods, turned=True)
    other = step(student_of(), renumbered(teacher), methods)
    assert {key.split('.')[1] for key in wanted} == set(methods)
    close = functools.partial(pytest.approx, rel=1e-4, abs=1e-6)
    assert found == close(wanted)
    changed = {key.split('.')[1] for key, value in wanted.items() if other[key] != close(value)}
    assert changed == set(methods)


@pytest.mark.parametrize('kind', ['Mask2Former', 'Segmenter', 'PSPNet'])
def test_a_teacher_of_another_order_is_read_by_name(kind):
    """An ensemble of one network, with ``classes`` in the student's order."""
    student, teacher = (of_masks(kind, width) for width in (4, 8))
    turned = renumbered(teacher)
    turned.dataset_meta = dict(classes=NAMES[-1:] + NAMES[:-1])
    methods = ('KD', 'SKDPixel', 'DIST')
    wanted = step(copy.deepcopy(student), copy.deepcopy(teacher), methods)
    member = dict(one=Teacher(turned, checkpoint='random'))
    mapped = Ensemble(member, mean='probability', tau=1.0, classes=NAMES)
    assert step(copy.deepcopy(student), mapped, methods) == pytest.approx(wanted, rel=1e-3)
