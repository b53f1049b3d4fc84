"""A folder of labels: its images, what is done of it, and what a config needs to know."""

from __future__ import annotations

import datetime
import json
import os.path as osp
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmkd.chain import Product
from mmkd.chain.product import write_json
from mmkd.checkpoint import atomic_file
from mmkd.makers.label_files import write_page
from mmkd.makers.pictures import files_of
from mmkd.version import __version__

#: folders with what is done
PARTS = ('parts', 'masks')


def list_images(owner: str, source: str) -> list[str]:
    """Every image file that ``images`` means, in order, once.

    Raises:
        FileNotFoundError: there is none.
    """
    if source.endswith('.txt'):
        if not osp.isfile(source):
            raise FileNotFoundError(f'{owner}: there is no file {source}.')
        lines = Path(source).read_text(encoding='utf-8-sig').splitlines()
        files = [line.strip() for line in lines if line.strip()]
    else:
        files = files_of(source, 2**62)
    files = list(dict.fromkeys(files))  # a repeated dataset names them again
    if not files:
        raise FileNotFoundError(f'{owner}: {source} has no images.')
    return files


def root_of(source: str, files: Sequence[str]) -> str:
    """The folder below which all of them are."""
    if osp.isdir(source):
        return source
    return osp.commonpath([osp.dirname(f) or '.' for f in files]) or '.'


def check_stems(root: str, files: Sequence[str]) -> None:
    """mmdet finds the images of VOC by their names alone; ValueError where it would not."""
    other = [f for f in files if osp.normpath(f) != osp.normpath(f'{root}/{Path(f).stem}.jpg')]
    if other:
        raise ValueError(
            f'PseudoLabels: datasets in VOC format have images NAME.jpg in one folder, but there '
            f"is {other[0]}. Take format='coco'."
        )


def finish(
    owner: str,
    out: str,
    path: str,
    entry: dict,
    shown: list,
    info: Mapping[str, Any],
    damaged: Sequence[str],
) -> Product:
    """Page, dataset and information; then complain of files that cannot be read."""
    describe(owner, 'pseudo', out, entry, shown, info)
    if damaged:
        raise ValueError(
            f'{owner}: {len(damaged)} images cannot be read, the others are done. '
            f'{" ".join(damaged[:5])}'
        )
    return Product('', path, out)


def describe(
    owner: str, name: str, out: str, entry: dict, shown: list, info: Mapping[str, Any]
) -> None:
    """What is written beside images and labels: ``check.png``, ``dataset.py`` and ``info.json``.

    Args:
        owner (str): the maker.
        name (str): of the dataset in ``dataset.py``.
        entry (dict): the dataset, without a pipeline.
        shown (list): pictures (H, W, 3) of the page.
    """
    write_page(osp.join(out, 'check.png'), shown)
    text = f'# Made by mmkd make {owner}: _base_.{name}, to which a pipeline is added.\n'
    text += f'{name} = {entry!r}\n'
    with atomic_file(osp.join(out, 'dataset.py')) as part:
        Path(part).write_text(text)
    write_json(osp.join(out, 'info.json'), dict(info))


def dated(info: Mapping[str, Any], thresholds: Mapping[str, float] | None = None) -> dict[str, Any]:
    """With the thresholds, where there are some, the time and the version."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
    limits = {} if thresholds is None else dict(threshold=dict(thresholds))
    return dict(info, **limits, date=now, mmkd=__version__)


def write_compact(path: str, content: Any) -> None:
    """JSON in one line, complete or not at all."""
    with atomic_file(path) as part:
        Path(part).write_text(json.dumps(content))


def claim(
    out: str,
    wanted: Mapping[str, Any],
    overwrite: bool,
    owner: str = 'PseudoLabels',
    other: str = 'labels of another teacher, of other images or with other options',
    parts: Sequence[str] = PARTS,
) -> None:
    """Take a folder for files of this kind, and go on with what is there of them.

    Args:
        wanted (Mapping): teacher, images and options.
        overwrite (bool): delete files of another kind.
        owner, other (str): the maker, and what the folder may hold, for the message.
        parts (Sequence[str]): folders with what is done.

    Raises:
        ValueError: there are some.
    """
    path = osp.join(out, 'made.json')
    wanted = json.loads(json.dumps(wanted))
    if osp.isfile(path) and json.loads(Path(path).read_text()) != wanted:
        if not overwrite:
            raise ValueError(
                f'{owner}: {out} holds {other}. Choose another folder, or set overwrite=True.'
            )
        for name in parts:
            shutil.rmtree(osp.join(out, name), ignore_errors=True)
    for name in parts:
        Path(out, name).mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)
