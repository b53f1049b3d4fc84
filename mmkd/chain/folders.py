"""The folders of a chain: what is done, and whether it is of this very chain."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd.chain.links import Links
from mmkd.chain.product import (
    DONE,
    STARTED,
    Product,
    done_marker,
    fingerprint,
    read_json,
    write_json,
)
from mmkd.engine.settings import changes


class OtherStageError(ValueError):
    """A folder that holds something else than the stage that is to work there.

    Attributes:
        folder (str): which.
    """

    def __init__(self, text: str, folder: str) -> None:
        super().__init__(text, folder)
        self.folder = folder

    def __str__(self) -> str:
        return self.args[0]


def find_done(links: Links) -> dict[str, tuple[Product, float]]:
    """Finished stages, each with all that it needs finished too, and their seconds."""
    found: dict[str, tuple[Product, float]] = {}
    for name, stage in links.stages.items():
        marker = done_marker(links.folder(name))
        if marker and all(r.stage in found for r in stage.references().values()):
            found[name] = Product(**marker['product']), marker.get('seconds', 0.0)
    return found


def check_folders(links: Links) -> None:
    """Refuse folders with a stage of another fingerprint, or with a run that is no stage.

    A run that has saved no checkpoint yet may become another one: nothing of it is lost. So may a
    maker that is not done, which begins again, or knows by itself what of its files is of use.

    Raises:
        OtherStageError: which, and the keys of the config that differ.
    """
    for name, stage in links.stages.items():
        folder = links.folder(name)
        done, saved = read_json(osp.join(folder, DONE)), any(Path(folder).glob('*.pth'))
        if done is None and (stage.make or not saved):
            continue
        marker = done or read_json(osp.join(folder, STARTED))
        if marker is None:
            if saved:
                raise OtherStageError(
                    f'{folder} holds checkpoints of a run that is no stage of a chain. Give '
                    'another --work-dir, or move the folder away.',
                    folder,
                )
            continue
        missing = [r.stage for r in stage.references().values() if r.stage not in links.products]
        if missing:
            raise OtherStageError(
                f'{folder} holds stage {name!r}, but stage {missing[0]!r}, from which it came, is '
                f'not finished here. Put that back, or delete {folder} as well.',
                folder,
            )
        _check_fingerprint(links, name, marker)


def _check_fingerprint(links: Links, name: str, marker: Mapping[str, Any]) -> None:
    settings, inputs = links.identity(name)
    before = marker.get('settings') or {}
    if 'configs' not in before:  # it is not known what they said, if there were some
        settings.pop('configs', None)
    if marker.get('fingerprint') == fingerprint(settings, inputs):
        return
    found = dict(changes(before, settings))
    shown = '; '.join(f'{key} {change}' for key, change in list(found.items())[:10])
    roles = [r for r, value in inputs.items() if (marker.get('inputs') or {}).get(r) != value]
    taken = f'the file of {", ".join(roles)} is another' if roles else ''
    reason = '; '.join(filter(None, (shown, taken))) or 'its marker was changed'
    raise OtherStageError(
        f'{links.folder(name)} holds stage {name!r} of another chain or config: {reason}. Give '
        'another --work-dir, put the settings back, or delete the folder: the stage then runs '
        'again.',
        links.folder(name),
    )


def begin(links: Links, name: str) -> dict[str, Any]:
    """Mark a folder as that of this very stage before anything else is written into it."""
    settings, inputs = links.identity(name)
    known = fingerprint(settings, inputs)
    marker = dict(stage=name, fingerprint=known, settings=settings, inputs=inputs)
    write_json(osp.join(links.folder(name), STARTED), marker)
    return marker
