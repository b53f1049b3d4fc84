"""The shortest way through a network that reaches its taps, never in loss mode."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families.segmentor import gives_logits
from mmkd.tap import Tap

#: the route that also runs the auxiliary heads of a segmentor
AUXILIARY = 'tensor + auxiliary_head'
#: the route that also runs SAN's text encoder
WORDS = 'tensor + text_encoder'
_DETR_TAKES = ['img_feats', 'batch_data_samples']


def shortest_route(model: nn.Module, taps: Iterable[Tap]) -> str:
    """``'backbone'``, ``'extract_feat'``, ``'tensor'``, :data:`AUXILIARY` or :data:`WORDS`, as the
    taps need."""
    taps = list(taps)
    roots = {tap.path.split('.')[0] for tap in taps}
    if roots <= {'backbone'} and hasattr(model, 'backbone'):
        return 'backbone'
    if roots <= {'backbone', 'neck'} and hasattr(model, 'extract_feat'):
        return 'extract_feat'
    if 'auxiliary_head' in roots and hasattr(model, 'extract_feat'):
        return AUXILIARY
    proposals = ('image_encoder', 'decode_head.side_adapter_network')
    if _is_san(model) and not all(tap.path.startswith(proposals) for tap in taps):
        return WORDS
    return 'tensor'


def run_route(model: nn.Module, route: str, inputs: Tensor, samples: list) -> None:
    """Run a network along ``route``, never in loss mode."""
    if route == 'backbone':
        model.backbone(inputs)
    elif route == 'extract_feat':
        model.extract_feat(inputs)
    elif route == AUXILIARY:
        _run_auxiliary(model, inputs, samples)
    elif _is_san(model):
        _run_side_adapter(model, inputs, route == WORDS)
    elif isinstance(getattr(model, 'decode_head', None), nn.ModuleList):
        _run_cascade(model, inputs)
    elif _head_wants_samples(model):
        model.decode_head(model.extract_feat(inputs), samples)
    elif model.training and _gives_its_losses_more(model):
        _run_decoder(model, inputs, samples)
    else:
        model(inputs, samples, mode='tensor')


def _run_auxiliary(model: nn.Module, inputs: Tensor, samples: list) -> None:
    """A segmentor with its auxiliary heads, which mmseg runs in training only."""
    feats = model.extract_feat(inputs)
    with features_given(model, feats):  # each tap shall fire once
        run_route(model, 'tensor', inputs, samples)
    heads = model.auxiliary_head
    for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
        head(feats)


@contextlib.contextmanager
def features_given(model: nn.Module, feats: Any) -> Iterator[list[bool]]:
    """Let ``extract_feat`` return what is there already; yields a list of its calls."""
    asked: list[bool] = []

    def extract_feat(_: Tensor) -> Any:
        asked.append(True)
        return feats

    before = model.__dict__.get('extract_feat')
    model.__dict__['extract_feat'] = extract_feat
    try:
        yield asked
    finally:
        if before is None:
            del model.__dict__['extract_feat']
        else:
            model.__dict__['extract_feat'] = before


def _is_san(model: nn.Module) -> bool:
    return hasattr(getattr(model, 'decode_head', None), 'side_adapter_network')


def _run_side_adapter(model: nn.Module, inputs: Tensor, words: bool) -> None:
    """SAN, whose own ``mode='tensor'`` fails; without ``words`` as far as its mask proposals: what
    follows are the scores of queries and a text encoder that takes minutes on a CPU, once."""
    seen = inputs
    if model.asymetric_input:
        seen = F.interpolate(inputs, scale_factor=model.encoder_resolution, mode='bilinear')
    feats = model.image_encoder(seen)
    if words:
        model.decode_head.forward([inputs, feats, model.text_encoder()], [])
    else:
        model.decode_head.side_adapter_network(inputs, feats, [])


def _run_cascade(model: nn.Module, inputs: Tensor) -> None:
    """Decode heads that classify every pixel, one after the other, since mmseg's ``mode='tensor'``
    runs only one. PointRend's second head classifies points that it selects."""
    feats = model.extract_feat(inputs)
    first, *others = model.decode_head
    logits = first.forward(feats)
    for head in filter(gives_logits, others):
        logits = head.forward(feats, logits)


def _gives_its_losses_more(model: nn.Module) -> bool:
    """A DETR, whose ``mode='tensor'`` fails in training, if it hands its head what only the losses
    read; but not one whose classes are words."""
    run = getattr(model, 'forward_transformer', None)
    return run is not None and [*inspect.signature(run).parameters] == _DETR_TAKES


def _run_decoder(model: nn.Module, inputs: Tensor, samples: list) -> None:
    given = model.forward_transformer(model.extract_feat(inputs), samples)
    known = inspect.signature(model.bbox_head.forward).parameters
    model.bbox_head.forward(**{name: x for name, x in given.items() if name in known})


def _head_wants_samples(model: nn.Module) -> bool:
    """MaskFormer-like heads in mmseg cannot be reached through ``mode='tensor'``."""
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, nn.Module):
        return False
    return _takes_samples(type(head))


@functools.cache
def _takes_samples(head: type[nn.Module]) -> bool:
    return 'batch_data_samples' in inspect.signature(head.forward).parameters
