"""The table of a study as data that can be kept beside the pages that show it."""

from __future__ import annotations

import datetime
import os
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from mmkd.environment import PACKAGES, installed_version
from mmkd.study.report import entries
from mmkd.study.results import PairResults
from mmkd.version import __version__


def record(
    pairs: Sequence[PairResults], seeds: Sequence[int], work_dir: str, how: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``report.json`` of a study has; paths are relative to the current folder.

    Args:
        pairs (list): tables.
        seeds (list[int]): of the study.
        work_dir (str): of the study.
        how (dict): ``command``, that repeats the study; ``jobs``; ``device``.

    Returns:
        dict: ``command``, ``date`` of the report, ``device``, ``jobs``, ``versions`` of the
        packages, ``seeds``, and ``rows``: those of ``report.csv``, without empty entries.
    """
    folder = osp.abspath(work_dir)
    short = osp.join('work_dirs', osp.basename(folder))

    def relative(text: str) -> str:
        return text.replace(folder, short).replace(os.getcwd() + os.sep, '')

    rows = [
        {key: relative(text) for key, text in entry.items() if text}
        for entry in entries(pairs, seeds, work_dir)
    ]
    return dict(
        command=relative(how['command']),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        device=how['device'],
        jobs=how['jobs'],
        versions=versions(),
        seeds=list(seeds),
        rows=rows,
    )


def versions() -> dict[str, str]:
    """Versions of mmkd and of the packages that it trains with, as far as they are installed."""
    found = {'mmkd': __version__}
    for package in PACKAGES:
        version = next(filter(None, map(installed_version, package.distributions)), None)
        if version:
            found[package.module] = version
    return found
