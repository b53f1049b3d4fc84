"""CLoCKDistill: the encoder's memory on objects and ground, and queries at the objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters import build_adapter
from mmkd.families import dense, queries, query_decoding
from mmkd.families.comparable import Misfit, both
from mmkd.functional.box_masks import background_mask, foreground_mask
from mmkd.functional.device import upload
from mmkd.functional.query_distances import point_terms
from mmkd.levels import Level, pair_levels
from mmkd.objective import Objective, equal_size
from mmkd.options import check_choice, check_factors, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Side, Trace, parse_taps

#: of the memory on objects and on the ground, and of the answers at objects
FACTORS = dict(foreground=5e-5, background=1e-7, classes=1.0, boxes=5.0, giou=2.0)
AT_OBJECTS = ('classes', 'boxes', 'giou')
ON_MEMORY = ('foreground', 'background')
_NECK, _MEMORY = 'neck', 'forward_decoder()@in[memory]'


def memory_terms(student: Tensor, teacher: Tensor, foreground: Tensor) -> dict[str, Tensor]:
    """Sum of ``S (T - S)^2`` over cells and channels, of objects and of the ground, by image.

    Args:
        student, teacher (Tensor): memory as maps (N, C, H, W).
        foreground (Tensor): (N, H, W), 1 / area in cells of the smallest box at a cell, else 0; the
            ground has 1 / (number of its cells).
    """
    gap = (teacher - student).square().sum(1)
    masks = dict(foreground=foreground, background=background_mask(foreground))
    return {term: (mask * gap).sum() / len(gap) for term, mask in masks.items()}


@MODELS.register_module()
class CLoCKDistill(Objective):
    """CLoCKDistill: consistent location- and context-aware knowledge distillation for DETRs.

    Lan and Tian, 2025 (arXiv 2502.10683). There is no public code: the terms and all numbers are
    from a third party's description that agrees with the abstract, so this is an interpretation.

    * ``loss_foreground``, ``loss_background``: square error of the encoder's memory on objects, by
      the area of the smallest box, and on the ground, by its size.
    * ``loss_classes``, ``loss_boxes``, ``loss_giou``: both decoders get one query for each object,
      which nobody learns: its box, and for DINO and DDQ the teacher's embedding of its class. Every
      layer of the student imitates the teacher's last, weighted as in KDDETR. Images of equally
      many objects take one pass of the decoders together, since queries of an image see each other.

    Args:
        factors (dict[str, float] | None): of the terms ``'foreground'`` (5e-5), ``'background'``
            (1e-7), ``'classes'`` (1), ``'boxes'`` (5) and ``'giou'`` (2), where not these.
        classes (str): ``'softmax'`` or ``'sigmoid'``, see :class:`~mmkd.methods.kd_detr.KDDETR`.
        tau (float): temperature of ``'softmax'``.
        adapt (str | None): adapter of the memory, see :class:`~mmkd.objective.PairObjective`.
        level_map (str | list[tuple[int, int]] | None): pairs of levels, likewise.
        weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; two networks that are not DETRs of the same classes; for
            the queries, other decoders than two of DAB-DETR, DINO or DDQ.
    """

    compares_classes = True
    asks_teacher = True
    checks_shapes = False
    zero_at_equality = False  # the earlier layers imitate the teacher's last
    term_factors = {f'loss_{term}': f'factors.{term}' for term in FACTORS}
    scheduled = ('tau',)
    families = ('detr',)
    only = {'detr': ('DABDETR', 'DINO', 'DDQDETR')}

    def __init__(
        self,
        factors: Mapping[str, float] | None = None,
        classes: str = 'softmax',
        tau: float = 10.0,
        adapt: str | None = 'auto',
        level_map: str | list | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.factors = check_factors('CLoCKDistill', factors, FACTORS)
        self.classes = check_choice('CLoCKDistill', 'classes', classes, ('softmax', 'sigmoid'))
        self.tau = check_temperature('CLoCKDistill', tau)
        self.adapt, self.level_map = adapt, level_map
        self.pairs: list[tuple[int, int]] = []
        self.adapters = nn.ModuleDict()
        #: of student and teacher: width of the memory, and if it is that of all the neck's levels
        self.kinds: list[tuple[int, bool]] = []

    @property
    def at_objects(self) -> bool:
        """Whether decoders are asked about the objects."""
        return any(self.factors[term] for term in AT_OBJECTS)

    @property
    def on_memory(self) -> bool:
        """Whether memory is compared."""
        return any(self.factors[term] for term in ON_MEMORY)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        queries.check_decoders('CLoCKDistill', student, teacher)
        assert teacher is not None
        if self.at_objects:
            way = 'set the factors of classes, boxes and giou to 0, and memory is compared alone'
            if not all(map(takes_objects, (student, teacher))):
                raise Misfit(
                    'CLoCKDistill asks both decoders about boxes of objects, which DAB-DETR, DINO '
                    f'and DDQ understand, but {both(student, teacher)}; {way}'
                )
            queries.check_shared_points('CLoCKDistill', student, teacher, way)
        self.kinds = [
            (int(model.embed_dims), 'spatial_shapes' in queries.decoder_inputs(model))
            for model in (student, teacher)
        ]
        sides = [
            [*queries.memory_taps(model), *[_NECK] * self.on_memory] for model in (student, teacher)
        ]
        sides[0] += [queries.HEAD] * self.at_objects  # so that the decoder trains without tasks
        sides[1] += queries.point_taps(teacher) if self.at_objects else []
        self.student_taps, self.teacher_taps = map(parse_taps, sides)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not self.on_memory:
            return
        if student is None or teacher is None:
            raise ValueError(
                'CLoCKDistill: the encoders could not be probed; set the factors of foreground and '
                'background to 0.'
            )
        levels = [
            _memory_levels(side, *kind)
            for side, kind in zip((student, teacher), self.kinds, strict=True)
        ]
        self.pairs = pair_levels(*levels, self.level_map, False, 'CLoCKDistill', ('level_map',))
        for k, (i, j) in enumerate(self.pairs):
            adapter = build_adapter(self.adapt, levels[0][i], levels[1][j], 'CLoCKDistill')
            if adapter is not None:
                self.adapters[f'{k}'] = adapter

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        terms = self.memory(trace) if self.on_memory else {}
        terms |= self.answers(trace) if self.at_objects else {}
        return {f'loss_{term}': self.factors[term] * value for term, value in terms.items()}

    def memory(self, trace: Trace) -> dict[str, Tensor]:
        """Terms of the encoder's memory, summed over levels."""
        student, teacher = (memory_maps(side) for side in (trace.student, trace.teacher))
        boxes, _, images = dense.ground_truth(trace.samples, trace.inputs.device)
        height, width = trace.inputs.shape[2:]
        covered = upload([[width, height]] * len(trace.inputs), boxes)
        total = dict.fromkeys(ON_MEMORY, boxes.new_zeros(()))
        for k, (i, j) in enumerate(self.pairs):
            s, t = equal_size('CLoCKDistill', student[i], teacher[j].detach(), trace)
            s = self.adapters[f'{k}'](s) if f'{k}' in self.adapters else s
            mask = foreground_mask(boxes, images, covered, tuple(s.shape[2:]))
            total = {term: total[term] + x for term, x in memory_terms(s, t, mask).items()}
        return total

    def answers(self, trace: Trace) -> dict[str, Tensor]:
        """Terms of both decoders' answers at the objects; images without any count nothing."""
        judge, learner = trace.teacher, trace.student
        objects, labels, real = queries.ground_truth(trace.samples, trace.inputs)
        counts = [len(sample.gt_instances) for sample in trace.samples]
        # Without any object the whole picture is asked about, for nothing.
        objects = torch.where(real[..., None], objects, _whole(objects))
        with torch.no_grad():
            at = query_decoding.points_at(judge, objects, content_of(judge.model, labels))
            scores, boxes = query_decoding.decode_counted(judge, at, counts)
        found = query_decoding.decode_counted(learner, at, counts)
        logits = found[0], scores[-1]
        apart, sure = queries.class_distances(trace, *logits, self.classes, self.tau)
        return point_terms(apart, found[1], boxes[-1], sure * real, 'per_image')

    def describe(self) -> list[str]:
        """What is compared."""
        lines = ['both decoders are asked about the objects'] * self.at_objects
        return lines + [f'memory of level {i} <- level {j}' for i, j in self.pairs]


def takes_objects(model: nn.Module) -> bool:
    """Whether a query can be made of a box, and of a class if it needs a content."""
    return queries.kind(model) == 'box' or hasattr(model, 'dn_query_generator')


def content_of(model: nn.Module, labels: Tensor) -> Tensor | None:
    """Embeddings (N, G, D) of classes (N, G), where the model has them."""
    if not hasattr(model, 'dn_query_generator'):
        return None
    return model.dn_query_generator.label_embedding(labels)


def memory_maps(side: Side) -> list[Tensor]:
    """The encoder's memory (N, P, C) as maps (N, C, H, W), of the sizes of the neck's."""
    memory, maps = side[_MEMORY][0].transpose(1, 2), side[_NECK]
    if sum(x[0, 0].numel() for x in maps) != memory.shape[2]:  # DETR reads the last one
        maps = maps[-1:]
    parts = memory.split([x[0, 0].numel() for x in maps], 2)
    return [part.unflatten(2, x.shape[2:]) for part, x in zip(parts, maps, strict=True)]


def _memory_levels(levels: list[Level], width: int, several: bool) -> list[Level]:
    """Levels of :func:`memory_maps`: all of the neck's or its last, in the width of the memory."""
    maps = [level for level in levels if level.tap == _NECK]
    maps = maps if several else maps[-1:]
    return [Level((width, *level.shape[1:]), level.stride, _MEMORY) for level in maps]


def _whole(like: Tensor) -> Tensor:
    """The box of a whole image, (4,)."""
    return torch.cat((like.new_full((2,), 0.5), like.new_ones(2)))
