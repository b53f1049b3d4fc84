"""The decoder of a DETR on other queries than its own, and the points to ask it about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families.queries import kind, memory, points
from mmkd.tap import Side

#: what the decoder is given that is the same for all images
_SHARED = ('spatial_shapes', 'level_start_index')
_LEAST = 1e-4  # of a side of a box that enters a decoder


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
    model, like = side.model, memory(side)['memory']
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
    what :func:`~mmkd.families.queries.outputs` gave. It runs in the model's precision outside
    autocast.

    Args:
        given (dict): :func:`~mmkd.families.queries.memory` of the same network.
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


def of_images(given: dict[str, Any], images: list[int]) -> dict[str, Any]:
    """:func:`~mmkd.families.queries.memory`, or points, of some images alone."""
    return {
        name: value if value is None or name in _SHARED else value[images]
        for name, value in given.items()
    }
