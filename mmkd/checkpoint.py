"""Checkpoints read safely: no code of the file is ever run, and every refusal says why."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm
from torch.hub import download_url_to_file

from mmkd.unpickling import load_safely, unsafe_names

SCHEMES = ('http://', 'https://', 'open-mmlab://', 'openmmlab://', 'torchvision://', 'mmcls://')
OBJECTIVES = 'objectives.'

_trusted = False


class CheckpointError(ValueError):
    """A file that is no complete checkpoint, or that may not be loaded safely."""


def trust_checkpoints(on: bool = True) -> None:
    """Let every later :func:`read_checkpoint` run the code in a file (``--trust-checkpoint``)."""
    global _trusted
    _trusted = on


def read_checkpoint(
    source: str | os.PathLike, map_location: Any = 'cpu', trust: bool = False, mmap: bool = False
) -> dict:
    """Load a checkpoint without running any code in it.

    Args:
        source (str | PathLike): local file, http(s) URL, or ``open-mmlab://``, ``torchvision://``,
            ``mmcls://`` name. Downloads go to torch hub's cache.
        map_location: as in :func:`torch.load`.
        trust (bool): load even what needs code of its own (see also :func:`trust_checkpoints`).
        mmap (bool): leave the tensors on disk until they are looked at.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: not a checkpoint, incomplete, not downloadable, or not safe to load.
    """
    path = _local_path(os.fspath(source))
    check_file(path)
    try:
        checkpoint = load_safely(path, map_location, mmap)
    except pickle.UnpicklingError as error:
        checkpoint = _load_trusted(path, map_location, error, trust or _trusted)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  damaged bytes can raise anything
        raise CheckpointError(_damage(path, error)) from None
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path} holds a {type(checkpoint).__name__}, not a checkpoint: a mapping of weights '
            'is needed. Save model.state_dict() instead.'
        )
    if os.fspath(source).startswith('mmcls://'):
        checkpoint = mm._process_mmcls_checkpoint(checkpoint)
    return checkpoint


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
            f'{path} needs code that is not installed here: {_first_line(missing)}.'
        ) from None


def _damage(path: str, error: Exception) -> str:
    if 'magic number' in str(error):
        return f'{path} is a pickle, but not one written by torch.save.'
    return f'{path} is truncated or damaged ({_first_line(error)}). Copy or download it again.'


def state_dict_of(checkpoint: Mapping) -> dict:
    """Return the plain model weights of a checkpoint, whatever its layout.

    Takes ``state_dict``, ``model`` or the mapping itself; strips a ``module.`` in front of every
    key; drops what mmkd's objectives learned, so that a distilled student can be a teacher.

    Raises:
        CheckpointError: there are no tensors in it.
    """
    found = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            found = checkpoint[key]
            break
    weights = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not weights:
        names = ', '.join(map(str, list(found)[:8])) or 'nothing'
        raise CheckpointError(
            f"no weights in the checkpoint: expected tensors under 'state_dict', 'model' or at "
            f'the top, found {names}.'
        )
    prefix = 'module.' if all(k.startswith('module.') for k in weights) else ''
    state = OrderedDict((k[len(prefix) :], v) for k, v in weights.items())
    state = OrderedDict((k, v) for k, v in state.items() if not k.startswith(OBJECTIVES))
    if hasattr(found, '_metadata') and not prefix:
        # Module versions: old layouts are upgraded by the modules themselves.
        state._metadata = found._metadata  # type: ignore[attr-defined]
    return state


def dataset_meta_of(checkpoint: Mapping) -> dict[str, Any]:
    """What the file says of the data it was trained on, such as ``classes``; {} if nothing.

    Keys are lower case, as OpenMMLab writes them today.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    found = meta.get('dataset_meta') or {'classes': meta.get('CLASSES')}
    return {k.lower(): v for k, v in found.items() if v is not None}


# ------------------------------------------------------------------------------- finding the file


def _local_path(source: str) -> str:
    if not source.startswith(SCHEMES):
        if '://' in source:
            raise CheckpointError(
                f'cannot read {source}: expected a local file or one of {", ".join(SCHEMES)}.'
            )
        return os.path.expanduser(source)
    return _download(_resolve_alias(source))


def _resolve_alias(source: str) -> str:
    """URL behind an ``open-mmlab://`` like name."""
    scheme, name = source.split('://', 1)
    if scheme in ('http', 'https'):
        return source
    tables: dict[str, Callable[[], dict]] = {
        'torchvision': mm.get_torchvision_models,
        'mmcls': mm.get_mmcls_models,
    }
    try:
        urls = tables.get(scheme, mm.get_external_models)()
    except ImportError as error:
        raise CheckpointError(f'{source} cannot be looked up: {_first_line(error)}.') from None
    name = mm.get_deprecated_model_names().get(name, name) if 'mmlab' in scheme else name
    if name not in urls:
        raise CheckpointError(f'{source} is not a known model; {len(urls)} names are known there.')
    url = urls[name]
    return url if '://' in url else 'file://' + os.path.join(mm._get_mmengine_home(), url)


def _download(url: str) -> str:
    """Path of the cached file; the first process of each machine fetches it."""
    if url.startswith('file://'):
        return url[len('file://') :]
    cache = Path(torch.hub.get_dir()) / 'checkpoints' / os.path.basename(urlparse(url).path)
    if cache.exists():
        return str(cache)
    problem = None
    if int(os.environ.get('LOCAL_RANK', get_rank())) == 0:
        problem = _fetch(url, cache)
    barrier()
    if problem or not cache.exists():
        raise CheckpointError(
            f'could not download {url}: {problem or "the first process of this machine failed"}. '
            f'Download it by hand to {cache} or set checkpoint= to a local file.'
        )
    return str(cache)


def _fetch(url: str, cache: Path) -> str | None:
    """Download with a progress bar; returns what went wrong."""
    # OpenMMLab and torchvision end a name with the sha256; converted third-party files do not.
    tail = re.search(r'-([0-9a-f]{8,})\.\w+$', cache.name)
    sha = tail.group(1) if tail and 'third_party' not in url else None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        print_log(f'Downloading {url} to {cache}', logger='current')
        download_url_to_file(url, str(cache), sha, progress=True)
    except (OSError, RuntimeError) as error:
        return _first_line(error)
    return None


# --------------------------------------------------------------------------------- what kind it is

_FOREIGN = (
    (b'version https://git-lfs', 'a git-lfs pointer', 'Run `git lfs pull` in its repository.'),
    (b'\xff\xd8\xff', 'a JPEG image', ''),
    (b'\x89PNG', 'a PNG image', ''),
    (b'\x1f\x8b', 'a gzip archive', 'Unpack it first.'),
    (b'\xfd7zXZ', 'an xz archive', 'Unpack it first.'),
    (b'\x89HDF', 'an HDF5 file', ''),
)


def check_file(path: str) -> None:
    """Refuse what cannot be a complete checkpoint, by its first bytes and its archive index.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a directory, empty, of another kind, or cut short.
    """
    if not os.path.exists(path):
        near = sorted(p.name for p in Path(path).parent.glob('*.pth'))[:6]
        hint = f' Beside it: {", ".join(near)}.' if near else ''
        raise FileNotFoundError(f'checkpoint {path} does not exist.{hint}')
    if os.path.isdir(path):
        files = sorted(p.name for p in Path(path).glob('*.pth'))[:6]
        hint = f' Try one of {", ".join(files)} in it.' if files else ''
        raise CheckpointError(f'checkpoint {path} is a directory; a file is needed.{hint}')
    with open(path, 'rb') as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f'checkpoint {path} is empty. Copy or download it again.')
    if head.startswith(b'PK'):
        _check_archive(path)
    elif not head.startswith(b'\x80'):
        kind, hint = _kind_of(head)
        raise CheckpointError(f'{path} is {kind}, not a PyTorch checkpoint. {hint}'.strip())


def _kind_of(head: bytes) -> tuple[str, str]:
    for magic, kind, hint in _FOREIGN:
        if head.startswith(magic):
            return kind, hint
    text = head.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'a web page', 'The download address probably answered with an error page.'
    if head[8:10] == b'{"':
        return 'a safetensors file', 'Convert it with safetensors.torch.load_file + torch.save.'
    if not any(byte < 9 for byte in head):
        return f'a text file starting with {head[:30]!r}', ''
    return f'a file of unknown kind starting with {head[:8]!r}', ''


def _check_archive(path: str) -> None:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f'{path} is truncated: its end is missing. Copy or download it again.'
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith('data.pkl') for name in names):
        raise CheckpointError(f'{path} is a zip archive, not a PyTorch checkpoint.')
    if any(name.endswith('constants.pkl') for name in names):
        raise CheckpointError(
            f'{path} is a TorchScript archive, not a checkpoint. Save model.state_dict() instead.'
        )


def find_damage(path: str) -> str | None:
    """Read every byte: what is wrong with a checkpoint file, None if nothing."""
    try:
        check_file(path)
        # torch can be told to write no checksums; then there is nothing to compare.
        if zipfile.is_zipfile(path) and torch.serialization.get_crc32_options():
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            return f'{path} is damaged ({bad} does not match its checksum).' if bad else None
    except (CheckpointError, OSError, zipfile.BadZipFile) as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')


@contextmanager
def atomic_file(path: str) -> Iterator[str]:
    """A temporary name in the same folder; what was written there appears under ``path`` at once.

    The ``.part`` file is removed when writing fails, and left behind only by a killed process.

    Raises:
        OSError: the file cannot be written, e.g. because the disk is full.
    """
    part = f'{path}.{os.getpid()}.part'
    try:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:  # the new name itself must survive a power cut
        os.fsync(folder)
    finally:
        os.close(folder)
