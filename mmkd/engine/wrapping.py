"""A stock config turned into a distillation config: teacher, checkpoint and method by name."""

from __future__ import annotations

import copy
import os.path as osp
from typing import Any

from mmengine.config import Config

from mmkd.config import distils, load_config, resolve
from mmkd.methods import names
from mmkd.names import did_you_mean
from mmkd.registry import MODELS


def wrap_stock(path: str, teacher: str, checkpoint: str, method: str) -> tuple[Config, str]:
    """Distillation config for a stock config, without any config of ours.

    Args:
        path (str): the student's config.
        teacher (str): the teacher's config.
        checkpoint (str): the teacher's weights.
        method (str): a registered objective, ``'FGFI'`` or ``'mmkd.FGFI'``; several with a plus
            between them, ``'KD+AT'``.

    Returns:
        tuple[Config, str]: the config, and the text of the equivalent short config file.

    Raises:
        ValueError: an unknown method, a config without a model, or one that distils already.
    """
    config = load_config(path)  # first: its custom_imports may register the method
    kinds = [_registered(one) for one in method.split('+')]
    if config.get('model') is None:
        raise ValueError(
            f'{path} has no model to wrap. Name the config of a run; the stages of a chain name '
            'their teachers themselves.'
        )
    if distils(config.model):
        raise ValueError(f'{path} distils already; --teacher and --method wrap a plain config.')
    objectives = {kind.rpartition('.')[2].lower(): dict(type=kind) for kind in kinds}
    config.model = dict(
        type='mmkd.Distiller',
        student=config.model.to_dict(),
        teacher=dict(config=_portable(teacher), checkpoint=_portable(checkpoint)),
        objectives=objectives,
    )
    return config, _text(path, config)


def _registered(method: str) -> str:
    """A method with its scope, spelt as it is registered."""
    kind = method if '.' in method else f'mmkd.{method}'
    found = MODELS.get(kind)
    if found is None:
        raise ValueError(
            f'--method {method}: unknown. Known methods: {", ".join(names())}.'
            f'{did_you_mean(method, names())}'
        )
    return f'{kind.rpartition(".")[0]}.{found.__name__}'


def _portable(path: str) -> str:
    known = '::' in path or '://' in path or path in ('random', 'released', 'last', 'best')
    return path if known else osp.abspath(path)


def _text(path: str, config: Config) -> str:
    """A config file of its own: a child of the stock one, or, of one with ``read_base``, all of it.

    A file in the old style cannot inherit from one in the new style.
    """
    imports = dict(config.get('custom_imports') or {})
    names = imports.get('imports') or []
    imports['imports'] = [*([names] if isinstance(names, str) else names), 'mmkd']
    if Config._is_lazy_import(resolve(path)):
        whole = copy.copy(config)
        whole.custom_imports = imports
        return whole.pretty_text
    model = config.model
    options = ', '.join(f'{key}={value!r}' for key, value in imports.items())
    return (
        f'_base_ = [{_portable(path)!r}]\n\n'
        f'custom_imports = dict({options})\n\n'
        'model = dict(\n'
        '    _delete_=True,\n'
        "    type='mmkd.Distiller',\n"
        '    student=_base_.model,\n'
        '    teacher=dict(\n'
        f'        config={model["teacher"]["config"]!r},\n'
        f'        checkpoint={model["teacher"]["checkpoint"]!r},\n'
        '    ),\n'
        f'    objectives={_plain(model["objectives"])},\n'
        ')\n'
    )


def _plain(objectives: Any) -> str:
    items = ', '.join(f"{k}=dict(type='{v['type']}')" for k, v in objectives.items())
    return f'dict({items})'
