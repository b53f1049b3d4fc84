"""A pruned network as a plain config: widths that the options of stock modules can say."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmkd.options import options_of
from mmkd.registry import MODELS
from mmkd.students import is_edited
from mmkd.teacher import build_model

#: options that are numbers of channels
WIDTHS = (
    *('stem_channels', 'base_channels', 'in_channels', 'channels', 'feat_channels'),
    *('out_channels', 'c1_in_channels', 'c1_channels', 'conv_out_channels'),
)
#: parts of a model whose channels are not chosen
OTHERS = ('data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg', 'roi_head')


def stock_model(
    config: Config, state: Mapping[str, Tensor], widths: Mapping[int, int]
) -> Any | None:
    """The model of a config with other widths, if a network of these weights can be built so.

    Each part, such as backbone, neck and heads, is tried with its widths as they are and as they
    became, until its weights have the shapes that are wanted.

    Args:
        config (Config): of the network before.
        state (Mapping[str, Tensor]): ``state_dict`` of the network after.
        widths (Mapping[int, int]): what became of groups of so many channels.

    Returns:
        ConfigDict | None: None where no options say it.
    """
    if is_edited(config.model):
        return None
    found = copy.deepcopy(config.model)
    wanted = {key: value.shape for key, value in state.items()}
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'):
        for prefix, part in [*_parts(found)]:
            if not any(_fits(config, found, wanted, prefix) for _ in _variants(part, widths)):
                return None
    return found if _fits(config, found, wanted, '') else None


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    for name, value in model.items():
        several = isinstance(value, (list, tuple))
        for i, part in enumerate(value if several else [value]):
            if isinstance(part, Mapping) and 'type' in part and name not in OTHERS:
                yield (f'{name}.{i}.' if several else f'{name}.'), part


def _variants(part: Any, widths: Mapping[int, int]) -> Iterator[None]:
    """Set the widths of a part to each of their combinations in turn; the last stays."""
    options = {}
    for key, value in _options(part).items():
        new = _changed(value, widths)
        if new != value:
            options[key] = (new, value)
    for values in itertools.product(*options.values()):
        for key, value in zip(options, values, strict=True):
            part[key] = value
        yield


def _options(part: Any) -> dict[str, Any]:
    """The widths of a module, as its config has them or else as its class does."""
    cls = part['type'] if isinstance(part['type'], type) else MODELS.get(part['type'])
    options = options_of(cls) if isinstance(cls, type) else {}
    known = {key: option.default for key, option in options.items()} | dict(part)
    return {key: known[key] for key in WIDTHS if key in known}


def _changed(value: Any, widths: Mapping[int, int]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_changed(one, widths) for one in value]
    return widths.get(value, value) if isinstance(value, int) else value


def _fits(config: Config, model: Any, wanted: Mapping[str, Any], prefix: str) -> bool:
    """Whether a model, or the part of this prefix, has weights of these shapes."""
    whole = dict(model=copy.deepcopy(model), default_scope=config.get('default_scope'))
    try:
        built = build_model(Config(whole)).state_dict()
    except Exception:  # noqa: BLE001  widths that do not fit each other yet
        return False

    def own(shapes: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in shapes.items() if k.startswith(prefix)}

    return own({key: value.shape for key, value in built.items()}) == own(wanted)
