"""Every registered objective on a tiny model of every family that it declares."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmkd.adapters import ConvAdapter
from mmkd.distiller import Distiller
from mmkd.families import family_of
from mmkd.methods import names
from mmkd.registry import MODELS
from mmkd.schedule import Schedule
from mmkd.tap import Trace
from mmkd.teacher import Teacher, build_model
from mmkd.testing import (
    classification_batch,
    detection_batch,
    mask_batch,
    segmentation_batch,
    tiny_cascade_rcnn,
    tiny_classifier,
    tiny_dab_detr,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_mask2former,
    tiny_mask_rcnn,
    tiny_pspnet,
    tiny_retinanet,
    tiny_weak,
    tiny_yolov3,
    weak_batch,
)

MODELS_OF = {
    'two_stage': tiny_faster_rcnn,
    'MaskRCNN': tiny_mask_rcnn,
    'anchor': tiny_retinanet,
    'CascadeRCNN': tiny_cascade_rcnn,
    'GFL': tiny_gfl,
    'YOLOV3': tiny_yolov3,
    'detr': tiny_detr,
    'weak': functools.partial(tiny_weak, views=['flip']),
    'DABDETR': tiny_dab_detr,  # decoders of one width, which share points
    'DETR of RetinaNet': lambda width: (tiny_detr if width == 4 else tiny_retinanet)(width),
    'DETR of FasterRCNN': lambda width: (tiny_detr if width == 4 else tiny_faster_rcnn)(width),
    'RetinaNet of DABDETR': lambda width: (tiny_retinanet if width == 4 else tiny_dab_detr)(width),
    'FasterRCNN of DABDETR': lambda width: (tiny_faster_rcnn if width == 4 else tiny_dab_detr)(
        width
    ),
    'segmentor': functools.partial(tiny_pspnet, auxiliary=True),
    # queries that classify masks, more of the student than of the teacher
    'Mask2Former': lambda width, **more: tiny_mask2former(width, num_queries=16 - width, **more),
    'classifier': tiny_classifier,
    'projected': lambda width: tiny_classifier(
        width, projector=dict(type='mmkd.BottleneckProjector', out_channels=8)
    ),
    # the teacher's layout, whose tails the student's maps fit
    'alike': lambda width, **more: tiny_classifier(8, **more),
    # the teacher's layout and nearly its weights; its labels are what the teacher says
    'agreeing': lambda width, **more: tiny_classifier(8, **more),
}
CLASSIFIERS = ('classifier', 'projected', 'alike', 'agreeing')
SEGMENTORS = ('segmentor', 'Mask2Former')
#: what a student must have besides its family, or of each family
BUILT_FOR = {
    'SimKD': 'projected',
    'ResDist': 'alike',
    'BSS': 'agreeing',
    'KDDETR': 'DABDETR',
    'DETRDistill': 'DABDETR',
    'JudgedQueries': 'DETR of FasterRCNN',
    'JudgedBoxes': dict(anchor='RetinaNet of DABDETR', two_stage='FasterRCNN of DABDETR'),
    'MatchedDetections': 'DETR of RetinaNet',
}
#: losses that are minus the logarithm of a density, which is above 1 here
DENSITIES = {'EnDD'}
#: families that differ from another in the head alone; test_detectors.py trains them all
ALIKE = {'instance': 'two_stage', 'anchor_free': 'anchor', 'yolo': 'anchor'}
SIZE = (64, 96)  # H != W
#: factor of the first layer with which attacks on pixels reach a boundary
STEEP = 100.0


@functools.cache
def pairs() -> list[tuple[str, str]]:
    """(method, key of MODELS_OF), for pytest's parametrisation."""
    return [
        (name, _model(name, family))
        for name in names()
        for family in method(name).families
        if ALIKE.get(family) not in method(name).families
    ]


def _model(name: str, family: str) -> str:
    """The family's model, or a detector for which alone the method works."""
    only, built = method(name).only.get(family, ()), BUILT_FOR.get(name, {})
    built = {family: built} if isinstance(built, str) else built
    return next((detector for detector in only if detector in MODELS_OF), built.get(family, family))


@functools.cache
def method(name: str) -> type:
    return MODELS.get(f'mmkd.{name}')


@functools.cache
def networks(family: str) -> tuple[nn.Module, Teacher]:
    """Student and teacher of a family; tests share them and must not change them."""
    torch.manual_seed(0)
    student, teacher = (build_model(MODELS_OF[family](width=w)) for w in (4, 8))
    for model in (student, teacher):
        lively(model)
    if family == 'agreeing':
        student.load_state_dict(teacher.state_dict())
        lively(student)
        teacher.backbone.conv1.weight.data.mul_(STEEP)
        _undecide(student.train(), teacher.eval())
    return student.train(), Teacher(teacher, checkpoint='random')


def lively(model: nn.Module) -> None:
    """Move what starts at zero: untrained heads and BatchNorms say nothing in particular."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if hasattr(module, 'mask_feature'):
                # Masks that hardly any rounding moves across 0, where attention is cut off.
                module.mask_feature.bias.normal_(0, 3)
        if family_of(model) == 'classifier':
            model.head.fc.weight.mul_(4)  # opinions, next to which an epsilon is small


@torch.no_grad()
def _undecide(*classifiers: nn.Module) -> None:
    """Logits have mean 0 over images, so that none is far from a boundary."""
    for model in classifiers:
        fc = model.head.fc
        fc.bias.sub_(copy.deepcopy(model)(classification_batch(8, SIZE)[0]).mean(0))


def odd_size(family: str) -> tuple[int, int]:
    """Sides for which maps are odd; detectors' inputs are padded to multiples of 32."""
    return (65, 97) if family in (*SEGMENTORS, *CLASSIFIERS) else (96, 160)


def batch(
    family: str,
    n: int | None = None,
    empty: bool = False,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
) -> tuple[Tensor, list]:
    """Pixels and samples; ``empty`` without boxes, or with nothing but labels to be ignored.

    Two images where ``n`` is not given, eight for classifiers: batch statistics need some, and
    the second half repeats the classes of the first, for methods that pair them.
    """
    if family in CLASSIFIERS:
        inputs, samples = classification_batch(n or 8, size, seed=seed)
        if family == 'agreeing':
            for sample, scores in zip(samples, networks(family)[1].model(inputs), strict=True):
                sample.set_gt_label(scores.argmax())
        return inputs, samples
    n = n or 2
    if family == 'MaskRCNN':
        return mask_batch(n, size, 0 if empty else 2, seed)
    if family == 'weak':
        return weak_batch(n, size, 0 if empty else 2, seed)
    if family not in SEGMENTORS:
        return detection_batch(n, size, 0 if empty else 2, seed)
    inputs, samples = segmentation_batch(n, size, seed=seed)
    for sample in samples if empty else []:
        sample.gt_sem_seg.data.fill_(255)
    return inputs, samples


def fresh_teacher(teacher: Teacher) -> Teacher:
    """The same network; what it listens to is each Distiller's own."""
    return copy.copy(teacher)


def build(
    name: str, family: str, student: nn.Module | None = None, teacher=None, **options
) -> Distiller:
    """The method with its defaults and weight 1, without checks of the first steps."""
    own, frozen = networks(family)
    objective = method(name)(**options)
    distiller = Distiller(
        student=own if student is None else student,
        teacher=fresh_teacher(frozen if teacher is None else teacher),
        objectives=dict(it=objective),
        task_weight=None if objective.makes_images else 1.0,  # they have no labels
        preflight=False,
    )
    objective.weight = Schedule(1.0)
    return distiller


def terms(distiller: Distiller, data: tuple[Tensor, list], seed: int = 0) -> dict[str, Tensor]:
    """All that the objective returned in one step, always with the same random numbers."""
    torch.manual_seed(seed)
    inputs, samples = data
    losses = distiller.loss(inputs, copy.deepcopy(samples))
    return {k.removeprefix('kd.it.'): v for k, v in losses.items() if k.startswith('kd.it.')}


def terms_of_copy(distiller: Distiller, trace: Trace) -> dict[str, Tensor]:
    """What a copy of the objective returns: the state of the objective stays as it is."""
    objectives = distiller.objectives
    kept, objectives['it'] = objectives['it'], copy.deepcopy(objectives['it'])
    try:
        found = distiller._terms('it', 1.0, trace)
    finally:
        objectives['it'] = kept
    return {k.removeprefix('kd.it.'): v for k, v in found.items()}


def total(result: dict[str, Tensor]) -> Tensor:
    return sum(v for k, v in result.items() if k.startswith('loss'))


@dataclass
class Case:
    """One method on one family; the first to ask for its result lets it do one ordinary step."""

    name: str
    family: str
    distiller: Distiller = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.distiller = build(self.name, self.family)

    @functools.cached_property
    def result(self) -> dict[str, Tensor]:
        return terms(self.distiller, batch(self.family))

    @property
    def objective(self) -> nn.Module:
        return self.distiller.objectives['it']

    @property
    def loss(self) -> Tensor:
        return total(self.result)


def leaves(loss: Tensor) -> set[Tensor]:
    """Every tensor in which the loss's graph ends."""
    found, seen, todo = set(), set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):
            found.add(node.variable)
        todo += [parent for parent, _ in node.next_functions]
    return found


def make_identities(objective: nn.Module) -> None:
    """Turn every adapter into the identity, if it leads to as many channels as it starts from."""
    for module in objective.modules():
        if isinstance(module, ConvAdapter):
            nn.init.dirac_(module.conv.weight)
            if module.conv.bias is not None:
                nn.init.zeros_(module.conv.bias)
            module.norm = module.relu = nn.Identity()


@functools.cache
def untouched(family: str) -> tuple[nn.Module, Teacher]:
    """Networks that no other test trained, the same in every process."""
    return networks.__wrapped__(family)


def rank_gradient(name: str, family: str, rows: slice) -> dict[str, Tensor]:
    """Gradient of the loss on some images of a batch of four, in eval mode."""
    student, teacher = untouched(family)
    torch.manual_seed(0)
    distiller = build(name, family, student, teacher).eval()
    inputs, samples = batch(family, 4)
    loss = total(terms(distiller, (inputs[rows], samples[rows])))
    parameters = {n: p for n, p in distiller.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: g for n, g in zip(parameters, grads, strict=True) if g is not None}
