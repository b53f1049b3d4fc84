"""Reasons why a file cannot be read, in words."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping


def fault(path: str) -> str:
    """Why a local file cannot be read; '' if it can.

    Only regular files may be read: a device such as ``/dev/zero`` never ends, and a FIFO waits.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return f'it is a link to {os.readlink(path)}, which does not exist'
        return 'no such file'
    except (OSError, ValueError) as error:
        return str(getattr(error, 'strerror', None) or error)
    if stat.S_ISDIR(status.st_mode):
        return 'it is a directory'
    if not stat.S_ISREG(status.st_mode):
        return 'it is a device or a pipe, not a regular file'
    if not status.st_size:
        return 'the file is empty'
    if not os.access(path, os.R_OK):
        return 'permission to read it is missing'
    return ''


def similar(path: str) -> str:
    """A hint at a file of the same name with another suffix or in other case; '' without one."""
    if '\\' in path:
        return ' (its backslashes separate no folders here)'
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0].strip().lower()
    try:
        names = sorted(os.listdir(folder or '.'))
    except OSError:
        return ''
    found = [one for one in names if os.path.splitext(one)[0].lower() == stem and one != name]
    return f' (there is {found[0]})' if stem and found else ''


def is_remote(path: str, cfg: Mapping) -> bool:
    """Whether a path of a dataset's config is read by something else than the local disk."""
    return '://' in path or not is_local(cfg)


def is_local(cfg: Mapping) -> bool:
    """Whether ``backend_args`` (or the older ``file_client_args``) mean the local disk."""
    args = cfg.get('backend_args') or cfg.get('file_client_args') or {}
    return args.get('backend', 'local') in ('local', 'disk')


def shown(items, limit: int = 5, between: str = ', ') -> str:
    """The first items of a list, and how many more there are."""
    items = list(items)
    more = [f'and {len(items) - limit} more'] if len(items) > limit else []
    return between.join([*map(str, items[:limit]), *more])
