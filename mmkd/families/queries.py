"""DETR and its kind: what a query is, and the decoder on other queries than its own.

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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

#: what the decoder is given that is the same for all images
_SHARED = ('spatial_shapes', 'level_start_index')
#: address of the classes (L, N, Q, C) and boxes (L, N, Q, 4) of all decoder layers
HEAD = 'bbox_head.forward()'
HIDDEN = 'bbox_head.forward()@in[hidden_states]'
_DENOISING = 'bbox_head.loss()@in[dn_meta]'
_POINTS = ('query', 'query_pos', 'reference_points')
_LEAST = 1e-4  # of a side of a box that enters a decoder


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


def of_images(given: dict[str, Any], images: list[int]) -> dict[str, Any]:
    """:func:`memory`, or points, of some images alone."""
    return {
        name: value if value is None or name in _SHARED else value[images]
        for name, value in given.items()
    }


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


@contextmanager
def whole_attention(model: nn.Module) -> Iterator[None]:
    """No dropout of the decoder's weights of self-attention, which would set some to 0."""
    parts = [layer.self_attn for layer in model.decoder.layers]
    # Of Conditional and DAB-DETR, and of the others.
    places = [
        (x.attn_drop, 'p') if hasattr(x, 'forward_attn') else (x.attn, 'dropout') for x in parts
    ]
    kept = [getattr(*place) for place in places]
    for part, name in places:
        setattr(part, name, 0.0)
    try:
        yield
    finally:
        for (part, name), value in zip(places, kept, strict=True):
            setattr(part, name, value)


# ------------------------------------------------------------------------------------- new points


def fresh_points(
    side: Side, count: int, how: str = 'normal', generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Random points for a network, the same for all images of a batch.

    Args:
        side (Side): of the network whose vectors they get.
        count (int): R.
        how (str): box logits are drawn from N(0, 1) (``'normal'``), or boxes uniformly. Vectors of
            a ``'pair'`` are drawn from N(0, 1), its reference point follows from them, or is drawn
            uniformly.

    Raises:
        ValueError: an ``'embedding'``, which has no place in the image.
    """
    model, like = side.model, _value(side, 'memory')
    device, which = like.device, kind(model)
    if which == 'embedding':
        raise ValueError(f'points of {type(model).__name__} are learned vectors without a place.')
    dim = int(model.decoder.query_dim) if which == 'box' else 2 if which == 'pair' else 4
    options = dict(device=device, generator=generator)
    if how == 'uniform':
        places = torch.rand(count, dim, **options).clamp(_LEAST, 1 - _LEAST)
    else:
        places = torch.randn(count, dim, **options).sigmoid()
    if which != 'pair':
        return points_at(side, places.expand(len(like), -1, -1))
    vectors = torch.randn(count, 2 * model.embed_dims, **options)
    query_pos, query = vectors.expand(len(like), -1, -1).chunk(2, -1)
    if how == 'uniform':
        reference = places.expand(len(like), -1, -1)
    else:
        weight = model.reference_points_fc.weight
        reference = model.reference_points_fc(query_pos.to(weight.dtype)).float().sigmoid()
    return dict(query=query, query_pos=query_pos, reference_points=reference)


def points_at(side: Side, boxes: Tensor, content: Tensor | None = None) -> dict[str, Tensor]:
    """Points of a network at given boxes; for kinds ``'box'`` and ``'selected'``.

    Args:
        side (Side): of the network whose vectors they get: the rows of its own points in turn, or
            those that two-stage Deformable DETR makes of a box.
        boxes (Tensor): (N, R, 4), cxcywh as shares of the image.
        content (Tensor | None): other vectors (N, R, D).
    """
    model = side.model
    boxes = boxes.clamp(_LEAST, 1 - _LEAST)
    logits = torch.logit(boxes)
    if hasattr(model, 'pos_trans_fc'):
        dtype = model.pos_trans_fc.weight.dtype
        embedded = model.get_proposal_pos_embed(logits.float()).to(dtype)
        query_pos, query = model.pos_trans_norm(model.pos_trans_fc(embedded)).chunk(2, -1)
        return dict(query=query, query_pos=query_pos, reference_points=boxes)
    own = points(side)
    if content is None and 'query' in own:
        rows = torch.arange(boxes.shape[1], device=boxes.device) % own['query'].shape[1]
        content = own['query'][:, rows]
    found = {} if content is None else dict(query=content)
    box = kind(model) == 'box'
    return found | (dict(query_pos=logits) if box else dict(reference_points=boxes))


# --------------------------------------------------------------------------------------- decoding


def decode(model: nn.Module, given: dict[str, Any], at: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Class logits (L, N, R, C) and boxes (L, N, R, 4) of a decoder and its head for any points.

    One pass of the decoder, none of the encoder. With the network's own memory and points it gives
    what :func:`outputs` gave. It runs in the model's precision outside autocast.

    Args:
        given (dict): :func:`memory` of the same network.
        at (dict): points of this or, in equal widths, of another network.
    """
    weight = next(model.decoder.parameters())
    every = {**given, **at}
    if 'query' not in every:
        n, count = every['query_pos'].shape[:2]
        every['query'] = weight.new_zeros(n, count, model.embed_dims)
    every = {name: _of_type(value, weight.dtype) for name, value in every.items()}
    low = weight.dtype in (torch.float16, torch.bfloat16)
    with _alone(model, every['query'].shape[1]):
        with torch.autocast(weight.device.type, dtype=weight.dtype if low else None, enabled=low):
            scores, boxes = model.bbox_head(**model.forward_decoder(**every))[:2]
    return scores.float(), boxes.float()


def decode_counted(
    side: Side, at: dict[str, Tensor], counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """:func:`decode` at the first so many points of each image; 0 at the others.

    Queries of an image see each other, so images of equally many points are decoded together, and
    no image gets more queries since another has more.

    Args:
        at (dict): R points of each image.
        counts (Sequence[int]): points of each image that are asked about; one of each image for
            nothing where there are none at all.
    """
    given, most = memory(side), len(next(iter(at.values()))[0])
    every = list(counts) if any(counts) else [1] * len(counts)
    found: list[Tensor] = []
    for count in sorted({*every} - {0}):
        images = [i for i, own in enumerate(every) if own == count]
        chosen = {name: x[images, :count] for name, x in at.items()}
        part = decode(side.model, of_images(given, images), chosen)
        if len(images) == len(every) and count == most:
            return part
        if not found:
            found = [x.new_zeros(len(x), len(every), most, x.shape[-1]) for x in part]
        for whole, own in zip(found, part, strict=True):
            whole[:, images, :count] = own
    return found[0], found[1]


def _of_type(value: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floats else value


@contextmanager
def _alone(model: nn.Module, count: int) -> Iterator[None]:
    """Without denoising and dense queries, which DDQ's decoder and head expect while they train.

    Layers inside them stay as they are.
    """
    cache = getattr(model, 'cache_dict', None)
    if cache is None:
        yield
        return
    parts = model.decoder, model.bbox_head
    kept, modes = dict(cache), [part.training for part in parts]
    cache['dis_query_info'] = [0, count]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        cache.update(kept)
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


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
