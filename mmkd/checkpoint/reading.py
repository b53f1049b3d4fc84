"""Reads checkpoints safely: no code of the file is run, and every refusal has a reason."""

from __future__ import annotations

import logging
import os
import pickle
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm

from mmkd.checkpoint.archives import survey
from mmkd.checkpoint.checkpoint_error import CheckpointError, damage, first_line
from mmkd.checkpoint.finding import local_file
from mmkd.checkpoint.inspecting import check_file, is_safetensors
from mmkd.checkpoint.safetensors import read_safetensors
from mmkd.checkpoint.scanning import Contents
from mmkd.checkpoint.stand_ins import Unsafe
from mmkd.checkpoint.trust import trusted
from mmkd.checkpoint.unpickling import exists_here, load_safely, misused_names, unsafe_names


def read_checkpoint(
    source: str | os.PathLike, map_location: Any = 'cpu', trust: bool = False, mmap: bool = False
) -> dict:
    """Load a checkpoint without running any code in it.

    ``meta.config`` is left out: mmengine's Runner would run that text when it resumes.

    Args:
        source (str | PathLike): local file, http(s) URL, ``open-mmlab://``, ``torchvision://`` or
            ``mmcls://`` name, or ``s3://`` address. Downloads go to torch hub's cache.
        map_location: as in :func:`torch.load`.
        trust (bool): also load files that run code (see also :func:`trust_checkpoints`).
        mmap (bool): leave the tensors on disk until they are read.

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
        content = _load(path, map_location, trust or trusted(), mmap)
    if not isinstance(content, dict):
        return content
    if source.startswith('mmcls://'):
        content = mm._process_mmcls_checkpoint(content)
    meta = content.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)
    return content


def _load(path: str, map_location: Any, trust: bool, mmap: bool) -> Any:
    if map_location is None and not torch.cuda.is_available():
        map_location = 'cpu'
    if is_safetensors(path):
        return read_safetensors(path, map_location)
    contents = _survey(path)
    names = unsafe_names(contents)
    if not names:
        try:
            return load_safely(path, map_location, mmap)
        except Unsafe as error:
            names = [str(error)]
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
            if contents.protocol == 2 or not isinstance(error, pickle.UnpicklingError):
                raise CheckpointError(damage(path, error)) from None
            names = [f'pickle protocol {contents.protocol}']
    if not contents.intact:
        wrong = pickle.UnpicklingError('its pickle does not fit its checksum')
        raise CheckpointError(damage(path, wrong))
    if contents.names & set(names) and not trust and not any(map(exists_here, names)):
        raise CheckpointError(
            f'{path} is damaged, or made for a package that is missing: it names '
            f'{", ".join(names[:8])}, which is not installed here. Copy it again, or ask for a '
            'file with weights only.'
        )
    return _load_trusted(path, map_location, names, trust)


def _survey(path: str) -> Contents:
    """Contents of the file, if it is a complete file of torch.save."""
    try:
        contents = survey(path)
        odd = contents.odd + [f'{name} would be called' for name in misused_names(contents)]
        if odd and not unsafe_names(contents):
            raise pickle.UnpicklingError(odd[0])
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(damage(path, error)) from None
    return contents


def _load_trusted(path: str, map_location: Any, names: list[str], trust: bool) -> Any:
    """Load a file that the safe reader refused, or raise with the reason."""
    needed = ', '.join(names[:8])
    if not trust:
        raise CheckpointError(
            f'{path} is refused: loading it needs {needed}, and a pickle that asks for more than '
            'tensors and plain values can run any program. If you trust whoever made the file, '
            'pass --trust-checkpoint.'
        )
    print_log(
        f'{path} needs {needed}; loaded all the same, because it was declared trusted.',
        logger='current',
        level=logging.WARNING,
    )
    try:
        return torch.load(path, map_location=map_location, weights_only=False)
    except (ImportError, AttributeError) as missing:
        raise CheckpointError(
            f'{path} needs code that is not installed here: {first_line(missing)}.'
        ) from None
