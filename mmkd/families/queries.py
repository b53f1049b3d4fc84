"""DETR and its kind: what a query is, and what a network says of its own.

mmdet's decoder is a function of the encoder's memory and of points, which differ in kind:

* ``'embedding'`` (DETR, Conditional DETR): a learned vector;
* ``'box'`` (DAB-DETR): a box, which says everything;
* ``'pair'`` (Deformable DETR): two learned vectors and a point that follows from them;
* ``'selected'`` (two-stage Deformable DETR, DINO, DDQ): a box that the encoder proposes for this
  image, and a vector.

Point j of one network is another object than point j of another, unless both were given the same
points.
"""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import family_of
from mmkd.families.comparable import Misfit, check_class_counts, check_same, named, uses_sigmoid
from mmkd.functional.box_distances import centred
from mmkd.functional.device import upload
from mmkd.functional.query_distances import binary_divergence, class_divergence
from mmkd.functional.sigmoid_distances import against_rest
from mmkd.tap import Side, Trace

#: address of the classes (L, N, Q, C) and boxes (L, N, Q, 4) of all decoder layers
HEAD = 'bbox_head.forward()'
HIDDEN = 'bbox_head.forward()@in[hidden_states]'
_DENOISING = 'bbox_head.loss()@in[dn_meta]'
_POINTS = ('query', 'query_pos', 'reference_points')


def kind(model: nn.Module) -> str | None:
    """What a point of this decoder is, see above; None for models without one, and for those whose
    classes are words of a text (Grounding DINO)."""
    if family_of(model) != 'detr' or speaks(model) or not hasattr(model, 'forward_decoder'):
        return None
    if 'reference_points' in decoder_inputs(model):
        return 'pair' if hasattr(model, 'reference_points_fc') else 'selected'
    return 'box' if hasattr(model.decoder, 'query_dim') else 'embedding'


def speaks(model: nn.Module) -> bool:
    """Whether the head scores words of a text in place of classes."""
    return 'memory_text' in signature(model.bbox_head.forward).parameters


def decoder_inputs(model: nn.Module) -> list[str]:
    """Names of what the decoder is given: points, memory, and masks."""
    known = signature(model.forward_decoder).parameters.values()
    return [p.name for p in known if p.kind is not Parameter.VAR_KEYWORD]


def point_inputs(model: nn.Module) -> list[str]:
    """Those that are points."""
    return [name for name in decoder_inputs(model) if name in _POINTS]


def output_taps(model: nn.Module) -> list[str]:
    """Taps that :func:`outputs` and :func:`hidden` need."""
    return [HEAD, *[_DENOISING] * _denoises(model)]


def _denoises(model: nn.Module) -> bool:
    return 'dn_meta' in signature(model.bbox_head.loss).parameters


def why_labels(model: nn.Module) -> str:
    """Why a student does not run without boxes while it trains; empty if it does."""
    if not _denoises(model):
        return ''
    return f'{type(model).__name__} makes denoising queries of boxes while it trains'


def replay_taps(model: nn.Module) -> list[str]:
    """Taps of a student whose decoder runs again: :func:`memory_taps`, and the head, so that
    decoder and head train where the student runs no further than its taps."""
    return [*memory_taps(model), HEAD]


def memory_taps(model: nn.Module) -> list[str]:
    """Taps that :func:`memory` needs."""
    return [_given(name) for name in _memory_inputs(model)]


def point_taps(model: nn.Module) -> list[str]:
    """Taps that :func:`points` needs."""
    return [*output_taps(model)[1:], *map(_given, point_inputs(model))]


def _memory_inputs(model: nn.Module) -> list[str]:
    own = (*_POINTS, 'dn_mask')
    return [name for name in decoder_inputs(model) if name not in own]


def _given(name: str) -> str:
    return f'forward_decoder()@in[{name}]'


def layers(model: nn.Module) -> int:
    """Decoder layers of which the head gives classes and boxes."""
    decoder = model.decoder
    return len(decoder.layers) if getattr(decoder, 'return_intermediate', True) else 1


# ---------------------------------------------------------------------------------- what was seen


def matching(side: Side) -> slice:
    """The queries that are matched with objects: behind denoising, in front of dense ones."""
    meta = next(iter(side.raw(_DENOISING)), None) or {}
    dense = int(meta.get('num_dense_queries', 0))
    return slice(int(meta.get('num_denoising_queries', 0)), -dense if dense else None)


def outputs(side: Side) -> tuple[Tensor, Tensor]:
    """Class logits (L, N, Q, C) and boxes (L, N, Q, 4), cxcywh as shares of the image, of all
    decoder layers, without denoising and dense queries.

    Raises:
        ValueError: more queries than the model has, which are several groups of them.
    """
    own, model = matching(side), side.model
    scores, boxes = (x[:, :, own] for x in side[HEAD][:2])
    wanted = int(model.num_queries) * max(int(getattr(model, 'num_patterns', 0)), 1)
    if scores.shape[2] != wanted:
        raise ValueError(
            f'{type(model).__name__} decoded {scores.shape[2]} queries in this step, but has '
            f'{wanted}. Groups of queries (Group DETR, Co-DETR) are not told apart; train without.'
        )
    return scores, boxes


def hidden(side: Side) -> Tensor:
    """What the decoder's layers made of these queries, (L, N, Q, D); tapped at :data:`HIDDEN`."""
    return side[HIDDEN][0][:, :, matching(side)]


def memory(side: Side) -> dict[str, Any]:
    """What the decoder is given beside points: the encoder's memory (N, P, D), masks, shapes."""
    return {name: _value(side, name) for name in _memory_inputs(side.model)}


def points(side: Side) -> dict[str, Tensor]:
    """The network's own points in this step, without denoising and dense ones.

    A ``'box'`` has no content where the model has no patterns: zeros of any width.
    """
    own, model = matching(side), side.model
    found = {name: _value(side, name)[:, own] for name in point_inputs(model)}
    if kind(model) == 'box' and not getattr(model, 'num_patterns', 0):
        del found['query']
    return found


def _value(side: Side, name: str) -> Any:
    return side.raw(_given(name))[-1]


def attention_taps(owner: str, model: nn.Module) -> list[str]:
    """Taps that :func:`attention` needs.

    Raises:
        Misfit: a decoder whose self-attention does not give its weights.
    """
    found = []
    for i, layer in enumerate(model.decoder.layers):
        part = getattr(layer, 'self_attn', None)
        if hasattr(part, 'forward_attn'):  # of Conditional and DAB-DETR
            found.append(f'decoder.layers.{i}.self_attn.forward_attn()[1]')
        elif isinstance(getattr(part, 'attn', None), nn.MultiheadAttention):
            found.append(f'decoder.layers.{i}.self_attn.attn[1]')
        else:
            raise Misfit(
                f'{owner} compares weights of self-attention, which {type(part).__name__} in the '
                f"decoder of {type(model).__name__} does not give; set factors={{'attention': 0}}"
            )
    return found


def attention(side: Side) -> list[Tensor]:
    """Self-attention between queries, mean over heads, (N, Q, Q) of each decoder layer."""
    own = matching(side)
    return [side[tap][0][:, own, own] for tap in attention_taps('attention', side.model)]


# ------------------------------------------------------------------------------- classes and boxes


def foreground(model: nn.Module, scores: Tensor) -> Tensor:
    """Probabilities (..., K) of the classes, without background, from logits (..., C)."""
    return scores.sigmoid() if uses_sigmoid(model.bbox_head) else scores.softmax(-1)[..., :-1]


def binary_logits(model: nn.Module, scores: Tensor) -> Tensor:
    """Logits (..., K) of each class against the rest: ``log p / (1 - p)`` of a softmax."""
    return scores if uses_sigmoid(model.bbox_head) else against_rest(scores)


def class_distances(
    trace: Trace, student: Tensor, teacher: Tensor, form: str, tau: float
) -> tuple[Tensor, Tensor]:
    """Distances of the classes at R points, (L, N, R), and the teacher's best probability, (N, R).

    Args:
        student, teacher (Tensor): logits (L, N, R, C) and (N, R, C).
        form (str): of all classes, at the temperature tau (``'softmax'``), or ``'sigmoid'``.
    """
    wanted = foreground(trace.teacher.model, teacher)
    if form == 'softmax':
        return class_divergence(student, teacher, tau), wanted.amax(-1)
    return binary_divergence(binary_logits(trace.student.model, student), wanted), wanted.amax(-1)


def image_sizes(samples: list, like: Tensor) -> Tensor:
    """(N, 4): width, height, width, height of each image in pixels, without padding."""
    sizes = [sample.metainfo['img_shape'][:2] for sample in samples]
    return upload([[w, h, w, h] for h, w in sizes], like)


def ground_truth(samples: list, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, G, 4), cxcywh as shares of the image, labels (N, G) and which are real, (N, G).

    G is the largest number of objects of an image, and at least one.
    """
    found = [sample.gt_instances for sample in samples]
    counts = [len(one) for one in found]
    most = max([1, *counts])
    boxes = like.new_zeros(len(found), most, 4)
    labels = torch.zeros(len(found), most, dtype=torch.long, device=like.device)
    for i, (one, count) in enumerate(zip(found, counts, strict=True)):
        boxes[i, :count] = getattr(one.bboxes, 'tensor', one.bboxes).to(like)
        labels[i, :count] = one.labels.to(like.device)
    real = upload([[i < count for i in range(most)] for count in counts], like, torch.bool)
    return centred(boxes / image_sizes(samples, like)[:, None]), labels, real


# ----------------------------------------------------------------------------------------- checks


def check_decoders(owner: str, student: nn.Module, teacher: nn.Module | None) -> None:
    """Both must be DETRs of the same classes, else Misfit, which says what there is instead."""
    models = [model for model in (student, teacher) if model is not None]
    kinds = [kind(model) for model in models]
    if None in kinds:
        names = [f'the {s} is {named(m)}' for s, m in zip(_SIDES, models, strict=False)]
        words = [m for m in models if family_of(m) == 'detr' and speaks(m)]
        why = f', and {type(words[0].bbox_head).__name__} scores words of a text' if words else ''
        raise Misfit(
            f'{owner} compares the decoders of DETR and its kind, but {" and ".join(names)}{why}'
        )
    if teacher is not None:
        check_class_counts(owner, *(model.bbox_head for model in models))


_SIDES = ('student', 'teacher')


def check_shared_points(owner: str, student: nn.Module, teacher: nn.Module, otherwise: str) -> None:
    """The student's decoder must understand the teacher's points, else Misfit.

    Args:
        otherwise (str): what to do where it does not, for the message.
    """
    kinds, models = [kind(m) for m in (student, teacher)], (student, teacher)
    inputs = [point_inputs(model) for model in models]
    if kinds[0] != kinds[1] or inputs[0] != inputs[1]:
        texts = [
            f"{type(m).__name__}'s {', '.join(x)}" for m, x in zip(models, inputs, strict=True)
        ]
        raise Misfit(
            f'{owner} gives both decoders the same points, but those of the student are '
            f'{texts[0]} ({kinds[0]}) and those of the teacher {texts[1]} ({kinds[1]}); {otherwise}'
        )
    patterns = [int(getattr(model, 'num_patterns', 0)) for model in models]
    if kinds[0] == 'box':
        check_same(owner, 'numbers in a box', *(int(m.decoder.query_dim) for m in models))
        check_same(owner, 'numbers of patterns', *patterns)
    if kinds[0] != 'box' or any(patterns):
        widths = [int(model.embed_dims) for model in models]
        check_same(owner, 'embed_dims of decoders that share points', *widths, otherwise)
