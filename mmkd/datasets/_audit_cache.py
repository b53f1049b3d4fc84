"""Clean audits of datasets, kept between runs, so that an unchanged dataset is not read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mmkd.checkpoint import atomic_file
from mmkd.datasets._objects import Objects
from mmkd.version import __version__

KEPT = 64  # files in the folder
SAMPLE = 256  # image files whose size and time are compared


def folder() -> Path | None:
    """``MMKD_CACHE``, else ``mmkd`` in the user's cache folder; None for ``off``."""
    asked = os.environ.get('MMKD_CACHE')
    if asked == 'off':
        return None
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(os.path.expanduser(asked or os.path.join(home, 'mmkd'))) / 'audits'


def key_of(dataset: Any, name: str) -> str | None:
    """Digest of the loaded annotations and of the settings that an audit depends on.

    None where annotations are not kept as bytes, or the cache is off.
    """
    data = getattr(dataset, 'data_bytes', None)
    if folder() is None or data is None or not len(data):
        return None
    settings = [
        *(__version__, name, len(dataset), bool(dataset.test_mode), os.getcwd()),
        *(_status(dataset.ann_file), dict(dataset.data_prefix), dataset.metainfo),
        [repr(step) for step in getattr(dataset.pipeline, 'transforms', ())],
    ]
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=20)
    digest.update(memoryview(data))
    return digest.hexdigest()


def load(key: str, kind: type) -> Any:
    """The audit of this key, an instance of ``kind``; None if there is none, or files changed."""
    try:
        digest, _, text = Path(folder() or '', f'{key}.json').read_text().partition('\n')
        if digest != _digest(text):
            return None
        entry = json.loads(text)
        if any(_status(path) != status for path, status in entry['files']):
            return None
        audit = entry['audit']
        objects, ids = Objects(**audit.pop('objects')), audit.pop('ids')
        longest = tuple(audit.pop('longest'))
        return kind(**audit, objects=objects, longest=longest, ids={k: tuple(v) for k, v in ids})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # damaged, of another version, or there is none


def save(key: str, audit: Any) -> None:
    """Keep a clean audit; where the folder cannot be written, nothing is kept."""
    paths = [path for path, _ in audit.ids.values() if isinstance(path, str)]
    folders = sorted({os.path.dirname(path) for path in paths})
    step = max(1, len(paths) // SAMPLE)
    files = [[path, _status(path)] for path in [*folders, *paths[::step]]]
    entry = dataclasses.asdict(dataclasses.replace(audit, ids={}))
    entry['ids'] = list(audit.ids.items())
    try:
        text = json.dumps(dict(files=files, audit=entry))
        where = folder() or Path()
        where.mkdir(parents=True, exist_ok=True)
        with atomic_file(str(where / f'{key}.json')) as part:
            Path(part).write_text(f'{_digest(text)}\n{text}')
        for old in sorted(where.glob('*.json'), key=os.path.getmtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except (OSError, TypeError, ValueError):
        return


def _status(path: Any) -> list[int] | None:
    """Size and time of a file or folder, None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
