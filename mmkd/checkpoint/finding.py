"""From a path, an address or the name of a model to a local file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm
from torch.hub import download_url_to_file

from mmkd.checkpoint.checkpoint_error import CheckpointError, first_line
from mmkd.checkpoint.choosing import newest_in
from mmkd.checkpoint.released import released_weights

SCHEMES = (
    'http://',
    'https://',
    'open-mmlab://',
    'openmmlab://',
    'torchvision://',
    'modelzoo://',
    'mmcls://',
    'released://',
)
_OBJECT_STORE = re.compile(r'(\S+:)?(s3|petrel)://')


@contextmanager
def local_file(source: str) -> Iterator[str]:
    """Path of a checkpoint on this machine; what an object store holds lies there only meanwhile.

    Raises:
        CheckpointError: an unknown scheme or name, or a download that fails.
    """
    if not _OBJECT_STORE.match(source):
        yield _local_path(source)
        return
    try:
        store = get_file_backend(source, backend_args=dict(backend='petrel'))
    except ImportError as error:
        raise CheckpointError(f'{source} cannot be looked up: {first_line(error)}.') from None
    with store.get_local_path(source) as path:
        yield str(path)


def _local_path(source: str) -> str:
    if source.startswith(SCHEMES):
        return _download(_resolve_alias(source))
    if '://' in source:
        raise CheckpointError(
            f'cannot read {source}: expected a local file or one of {", ".join(SCHEMES)}, s3://.'
        )
    path = os.path.expanduser(source)
    return newest_in(path) if os.path.isdir(path) else path


def _resolve_alias(source: str) -> str:
    """URL behind an ``open-mmlab://`` like name."""
    scheme, name = source.split('://', 1)
    if scheme in ('http', 'https'):
        return source
    if scheme == 'released':
        return released_weights(name)
    tables: dict[str, Callable[[], dict]] = {
        'torchvision': mm.get_torchvision_models,
        'modelzoo': mm.get_torchvision_models,
        'mmcls': mm.get_mmcls_models,
    }
    try:
        urls = tables.get(scheme, mm.get_external_models)()
    except ImportError as error:
        raise CheckpointError(f'{source} cannot be looked up: {first_line(error)}.') from None
    name = mm.get_deprecated_model_names().get(name, name) if 'mmlab' in scheme else name
    if name not in urls:
        raise CheckpointError(f'{source} is not a known model; {len(urls)} names are known there.')
    url = urls[name]
    return url if '://' in url else 'file://' + os.path.join(mm._get_mmengine_home(), url)


def _download(url: str) -> str:
    """Path of the cached file; one process of each machine fetches it, the others wait."""
    if url.startswith('file://'):
        return url[len('file://') :]
    cache = Path(torch.hub.get_dir()) / 'checkpoints' / os.path.basename(urlparse(url).path)
    problem = None
    if not cache.exists():
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with _alone(cache):
                if not cache.exists():
                    _fetch(url, cache)
        except (OSError, RuntimeError) as error:
            problem = first_line(error)
    if problem or not cache.exists():
        raise CheckpointError(
            f'could not download {url}: {problem or "nothing came"}. Download it by hand to '
            f'{cache} or set checkpoint= to a local file.'
        )
    return str(cache)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process of this machine at a time. No barrier: a rank may come when all is done."""
    with open(f'{cache}.lock', 'w') as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):  # as on Windows; a download appears under its name at once
            pass
        yield
    with suppress(OSError):
        os.remove(f'{cache}.lock')


def _fetch(url: str, cache: Path) -> None:
    """Download with a progress bar."""
    # OpenMMLab and torchvision end a name with the sha256; converted third-party files do not.
    tail = re.search(r'-([0-9a-f]{8,})\.\w+$', cache.name)
    sha = tail.group(1) if tail and 'third_party' not in url else None
    print_log(f'Downloading {url} to {cache}', logger='current')
    download_url_to_file(url, str(cache), sha, progress=True)
