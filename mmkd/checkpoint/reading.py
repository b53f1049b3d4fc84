"""Checkpoints read safely: no code of the file is ever run, and every refusal says why."""

from __future__ import annotations

import logging
import os
import pickle
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm

from mmkd.checkpoint.errors import CheckpointError, first_line
from mmkd.checkpoint.finding import local_file
from mmkd.checkpoint.inspecting import check_file
from mmkd.checkpoint.unpickling import load_safely, unsafe_names

_trusted = False


def trust_checkpoints(on: bool = True) -> None:
    """Let every later :func:`read_checkpoint` run the code in a file (``--trust-checkpoint``)."""
    global _trusted
    _trusted = on


def read_checkpoint(
    source: str | os.PathLike, map_location: Any = 'cpu', trust: bool = False, mmap: bool = False
) -> dict:
    """Load a checkpoint without running any code in it.

    ``meta.config`` is left out: mmengine's Runner would run that text when it resumes.

    Args:
        source (str | PathLike): local file, http(s) URL, ``open-mmlab://``, ``torchvision://`` or
            ``mmcls://`` name, or ``s3://`` address. Downloads go to torch hub's cache.
        map_location: as in :func:`torch.load`.
        trust (bool): load even what needs code of its own (see also :func:`trust_checkpoints`).
        mmap (bool): leave the tensors on disk until they are looked at.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: not a checkpoint, incomplete, not downloadable, or not safe to load.
    """
    checkpoint = read_file(source, map_location, trust, mmap)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{os.fspath(source)} holds a {type(checkpoint).__name__}, not a checkpoint: a mapping '
            'of weights is needed. Save model.state_dict() instead.'
        )
    return checkpoint


def read_file(
    source: str | os.PathLike, map_location: Any = None, trust: bool = False, mmap: bool = False
) -> Any:
    """As :func:`read_checkpoint`, but the file may hold anything, for instance one tensor."""
    source = os.fspath(source)
    with local_file(source) as path:
        check_file(path)
        content = _load(path, map_location, trust or _trusted, mmap)
    if not isinstance(content, dict):
        return content
    if source.startswith('mmcls://'):
        content = mm._process_mmcls_checkpoint(content)
    meta = content.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)
    return content


def _load(path: str, map_location: Any, trusted: bool, mmap: bool) -> Any:
    if map_location is None and not torch.cuda.is_available():
        map_location = 'cpu'
    try:
        return load_safely(path, map_location, mmap)
    except pickle.UnpicklingError as error:
        return _load_trusted(path, map_location, error, trusted)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(_damage(path, error)) from None


def _load_trusted(path: str, map_location: Any, error: Exception, trusted: bool) -> Any:
    """Load what the safe reader refused, or say why not."""
    names = unsafe_names(path, error)
    if not names:
        raise CheckpointError(_damage(path, error)) from None
    if not trusted:
        raise CheckpointError(
            f'{path} is refused: loading it needs {names}, and a pickle that asks for more than '
            'tensors and plain values can run any program. If you trust whoever made the file, '
            'pass --trust-checkpoint.'
        ) from None
    print_log(
        f'{path} needs {names}; loaded all the same, because it was declared trusted.',
        logger='current',
        level=logging.WARNING,
    )
    try:
        return torch.load(path, map_location=map_location, weights_only=False)
    except (ImportError, AttributeError) as missing:
        raise CheckpointError(
            f'{path} needs code that is not installed here: {first_line(missing)}.'
        ) from None


def _damage(path: str, error: Exception) -> str:
    if 'magic number' in str(error):
        return f'{path} is a pickle, but not one written by torch.save.'
    return f'{path} is truncated or damaged ({first_line(error)}). Copy or download it again.'
