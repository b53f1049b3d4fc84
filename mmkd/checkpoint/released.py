"""Weights that a package published for one of its configs, looked up in its own metafile."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import yaml

from mmkd.checkpoint.checkpoint_error import CheckpointError
from mmkd.config import resolve

_METAFILES = ('metafile.yml', 'metafile.yaml')


@cache
def released_weights(config: str) -> str:
    """Address of the weights that were released for a config, e.g. ``'mmdet::fcos/….py'``.

    Read from the ``metafile.yml`` beside the config, as OpenMMLab's packages install it, so the
    address is that of the package installed here. Nothing is downloaded.

    Raises:
        FileNotFoundError: there is no such config.
        CheckpointError: no metafile beside it, or none of its models has weights for this config.
    """
    path = resolve(config)
    folder, name = os.path.split(path)
    models = _models(folder, config)
    found = {_name(model['Config']): model.get('Weights') for model in models if 'Config' in model}
    if found.get(name):
        return found[name]
    known = sorted(other for other, address in found.items() if address)
    raise CheckpointError(
        f'no weights were released for {config}. Name a file or an address; in the same folder '
        f'there are weights for {", ".join(known[:6]) or "no config"}.'
    )


def _name(path: str) -> str:
    return path.rpartition('/')[2]


def _models(folder: str, config: str) -> list[dict[str, Any]]:
    for name in _METAFILES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding='utf-8') as file:
                content = yaml.safe_load(file)
            # Old metafiles are a list of models, newer ones a mapping that has one.
            return (content.get('Models') if isinstance(content, dict) else content) or []
    raise CheckpointError(
        f'{config} has no metafile.yml beside it, which would say where its released weights are. '
        'Name the file or the address of the checkpoint.'
    )
