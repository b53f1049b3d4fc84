"""Stock models made narrow."""

from __future__ import annotations

import copy
from typing import Any

_WIDTHS = [
    'in_channels',
    'out_channels',
    'feat_channels',
    'fc_out_channels',
    'conv_out_channels',
    'channels',
    'stem_channels',
    'base_channels',
    'c1_in_channels',
    'c1_channels',
    'ham_channels',
    'embed_dims',
    'feedforward_channels',
    'num_feats',
    'pool_channels',
    'point_feat_channels',
]
_OF_ONE_WIDTH = ('Darknet', 'MobileNetV2', 'mmkd.TinyDarknet')
_BEHIND_NECK = ('encoder', 'decoder', 'positional_encoding', 'bbox_head')


def shrink(model: Any, factor: int = 8) -> Any:
    """A stock model mapping with all its widths divided, without pretrained weights.

    Widths are what the keys above name; ResNets and DETRs are made explicit about theirs. Backbones
    that have one width only keep it, and so do decoders of which mmdet knows only one.
    """
    model = copy.deepcopy(model)
    if 'decoder' in model and 'bbox_head' in model:
        model['bbox_head'].setdefault('embed_dims', 256)
    kept = copy.deepcopy({part: model.get(part) for part in _BEHIND_NECK})

    def narrow(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(narrow(v) for v in value)
        small = not isinstance(value, int) or value < 2 * factor or value % factor
        return value if small else value // factor

    def walk(entry: Any) -> None:
        if isinstance(entry, (list, tuple)):
            for item in entry:
                walk(item)
        if not isinstance(entry, dict):
            return
        if str(entry.get('type')).rpartition('.')[2].startswith(('ResNet', 'ResNeXt')):
            entry.setdefault('base_channels', 64)
            entry['stem_channels'] = entry['base_channels']
        for key, value in entry.items():
            if key in ('init_cfg', 'pretrained'):
                entry[key] = None
            elif key in _WIDTHS:
                entry[key] = narrow(value)
            elif key == 'num_groups':
                entry[key] = 2
            elif key == 'widen_factor':
                entry[key] = value / factor
            else:
                walk(value)

    neck = model.get('neck') or {}
    inputs = neck.get('in_channels')
    walk(model)
    if (model.get('backbone') or {}).get('type') in _OF_ONE_WIDTH and neck:
        neck['in_channels'] = inputs
    if _has_one_width(model):
        model.update(kept)
        neck['out_channels'] = kept['bbox_head']['embed_dims']
    return model


def _has_one_width(model: dict) -> bool:
    """Whether mmdet's transformer works with 256 channels only."""
    kind = str(model.get('type')).rpartition('.')[2]
    return kind == 'ConditionalDETR' or (kind == 'DeformableDETR' and model.get('as_two_stage'))
