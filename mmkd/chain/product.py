"""What a stage hands on, and the markers by which a finished stage is known."""

from __future__ import annotations

import hashlib
import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmkd.chain.stage import Reference
from mmkd.checkpoint import (
    CheckpointError,
    atomic_file,
    find_damage,
    newest_in,
    read_checkpoint,
)
from mmkd.checkpoint.extract import extract

STARTED, DONE = 'started.json', 'done.json'
_WEIGHTS = ('.pth', '.pt', '.ckpt')


@dataclass(frozen=True)
class Product:
    """What a stage hands on; ``done.json`` holds it.

    Attributes:
        config (str): the resolved config; of a maker that changes a network the config whose model
            is the new one, ``''`` where it makes no network.
        checkpoint (str): the last checkpoint, or what a maker wrote: a file, or a folder of files.
        folder (str): of the stage.
        scores (dict[str, float]): metrics of the last validation.
    """

    config: str
    checkpoint: str
    folder: str
    scores: Mapping[str, float] = field(default_factory=dict)

    def file(self, reference: Reference) -> str:
        """The file, or folder of a maker, that a reference to this stage means.

        A peer's weights are written into a file of their own, under the names of a plain network.

        Raises:
            FileNotFoundError, CheckpointError: it is not there, or damaged.
        """
        path = self.checkpoint
        if reference.take == 'best':
            path = newest_in(self.folder, best=True)
        elif reference.take != 'last':
            path = osp.join(self.folder, f'{reference.take}.pth')
        if not osp.exists(path):
            raise FileNotFoundError(
                f'Stage {reference.stage!r} is done, but {path} is not there. Put the file back, '
                f'or delete {self.folder}: the stage then runs again.'
            )
        if path.endswith(_WEIGHTS):
            damage = find_damage(path)
            if damage:
                raise CheckpointError(damage)
        return _part(path, reference.part) if reference.part else path


def _part(path: str, part: str) -> str:
    own = f'{osp.splitext(path)[0]}_{part}.pth'
    if not osp.isfile(own) or osp.getmtime(own) < osp.getmtime(path):
        Path(own).unlink(missing_ok=True)
        extract(path, own, f'{part}.')
    return own


def digest(path: str) -> str:
    """What a file holds, as 64 hexadecimal digits; of a checkpoint only the weights count.

    So a stage that is trained again, with the same result, is no other one to those behind it. Of a
    file that holds weights in another way, such as in lists, every byte counts; of a folder, the
    names of all files in it and what they hold.
    """
    if osp.isdir(path):
        files = sorted(osp.join(at, name) for at, _, names in os.walk(path) for name in names)
        listed = (f'{osp.relpath(file, path)} {digest(file)}\n' for file in files)
        return hashlib.sha256(''.join(listed).encode()).hexdigest()
    weights: dict[str, torch.Tensor] = {}
    if path.endswith(_WEIGHTS):
        checkpoint = read_checkpoint(path, mmap=True)
        weights = _tensors(checkpoint.get('state_dict', checkpoint))
    if not weights:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    found = hashlib.sha256()
    for key, value in sorted(weights.items()):
        found.update(f'{key} {value.dtype} {tuple(value.shape)} '.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def fingerprint(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Changes whenever the result of a stage may."""
    text = json.dumps([settings, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: str, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as part:
        Path(part).write_text(json.dumps(content, indent=1) + '\n')


def read_json(path: str) -> dict[str, Any] | None:
    """A marker; None where there is none.

    Raises:
        ValueError: the file is no marker.
    """
    if not osp.isfile(path):
        return None
    try:
        found = json.loads(Path(path).read_text())
        if not isinstance(found, dict):
            raise ValueError(f'found a {type(found).__name__}')
    except ValueError as error:
        raise ValueError(
            f'{path} is no marker of a stage ({error}). Delete the folder of the stage, and it '
            'runs again.'
        ) from None
    return found


def done_marker(folder: str) -> dict[str, Any] | None:
    """The marker of a finished stage; None where the stage is not finished, or its file is damaged.

    Raises:
        ValueError: the file is no marker.
    """
    found = read_json(osp.join(folder, DONE))
    if found is None:
        return None
    product = found.get('product')
    if not isinstance(product, dict) or {*product} != {*asdict(Product('', '', ''))}:
        raise ValueError(
            f'{osp.join(folder, DONE)} is no marker of a stage (it has no product). Delete the '
            'folder of the stage, and it runs again.'
        )
    path = osp.join(folder, osp.basename(product['checkpoint']))
    if not osp.exists(path) or (path.endswith(_WEIGHTS) and find_damage(path)):
        return None
    # The folder may have been moved together with the chain.
    config = product['config'] and osp.join(folder, osp.basename(product['config']))
    product.update(folder=folder, checkpoint=path, config=config)
    return found
