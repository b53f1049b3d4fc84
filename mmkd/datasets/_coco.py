"""Errors in a COCO json, entry by entry."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmengine.logging import print_log

from mmkd.datasets._files import shown

NAMED = 3  # entries that a message names
SAMPLE = 1000  # annotations looked at for what a program writes into all of them
SECTIONS = ('images', 'annotations', 'categories')


class DataError(ValueError):
    """A fault of a dataset; the message names the file and the entry."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Check every COCO file that is loaded meanwhile, with what its loader has in memory.

    ``CocoDataset`` drops the loaded file when it is built, and a second look would cost seconds.
    Only ids are compared, which takes milliseconds for COCO itself.

    Raises:
        DataError: See ``check_index``.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError:
        yield
        return
    original = COCO.__init__

    def load(self: Any, annotation_file: str | None = None) -> None:
        original(self, annotation_file)
        if annotation_file is not None and type(self).createIndex is COCO.createIndex:
            check_index(self, annotation_file)

    COCO.__init__ = load
    try:
        yield
    finally:
        COCO.__init__ = original


def check_index(coco: Any, path: str) -> None:
    """Compare the ids of a loaded COCO file, and warn of entries that its loader leaves aside.

    Raises:
        DataError: a section is missing, two entries have one id, or a flag is text.
    """
    problem = _missing_section(coco.dataset)
    for key, index in zip(SECTIONS, (coco.imgs, coco.anns, coco.cats), strict=True):
        entries = coco.dataset.get(key) or []
        if not problem and len(index) < len(entries):
            problem = _repeated(key, (one['id'] for one in entries))
    problem = problem or _text_flag((coco.dataset.get('annotations') or [])[:SAMPLE])
    if problem:
        raise DataError(f'annotation file {path}: {problem}')
    warnings = [
        _unused('image', coco.imgToAnns, coco.imgs),
        _unused('category', coco.catToImgs, coco.cats),
        _repeated('categories', (one.get('name') for one in coco.cats.values()), 'name'),
    ]
    shared = _repeated('images', (one.get('file_name') for one in coco.imgs.values()), 'file_name')
    warnings.append(f'{shared}: the objects of one are background in the other' if shared else '')
    for text in filter(None, warnings):
        print_log(f'annotation file {path}: {text}', logger='current', level=logging.WARNING)


def _text_flag(annotations: list[dict]) -> str:
    """The first flag that is text: '0' would count as true."""
    for i, one in enumerate(annotations):
        for key in ('iscrowd', 'ignore'):
            if isinstance(one.get(key), str):
                return (
                    f'annotations[{i}]{_name(one)} has {key} {one[key]!r}, where 0 or 1 is needed'
                )
    return ''


def _unused(kind: str, entries: dict, known: dict) -> str:
    """Annotations of an image or a category that is not listed."""
    lost = [key for key in entries if key not in known]
    if not lost:
        return ''
    return (
        f'{sum(len(entries[key]) for key in lost)} annotation(s) are not used, because no {kind} '
        f'has their {kind}_id: {shown(map(repr, lost), NAMED)}'
    )


def _missing_section(content: Any) -> str:
    if not isinstance(content, dict):
        return f'it holds a {type(content).__name__}; COCO has a mapping with {", ".join(SECTIONS)}'
    for key in SECTIONS:
        # A list of test images has no annotations.
        if key not in content and key != 'annotations':
            return f'it has no {key!r}; it has {shown(content, 8) or "nothing"}'
        if not isinstance(content.get(key, []), list):
            return f'{key!r} is a {type(content[key]).__name__}, where a list is needed'
    return ''


def _repeated(section: str, values: Iterable, key: str = 'id') -> str:
    first: dict[Any, int] = {}
    for position, value in enumerate(values):
        if value in first:
            return (
                f'{section}[{first[value]}] and {section}[{position}] have the same {key} {value!r}'
            )
        first[value] = position
    return ''


# Why a file cannot be loaded; looked for only after that has failed. ----------------------------


def find_fault(path: str) -> str:
    """Entries of a COCO json that its loader cannot use; '' if none is found. Reads the file."""
    content, problem = read_json(path)
    problem = problem or _missing_section(content)
    if problem:
        return problem
    checks: dict[str, Callable[[dict], str]] = {
        'images': _image_fault,
        'categories': _category_fault,
        'annotations': _annotation_fault,
    }
    for section, check in checks.items():
        entries = content.get(section, [])
        found = ((i, one, _entry_fault(one, check)) for i, one in enumerate(entries))
        bad = [f'{section}[{i}]{_name(one)} {why}' for i, one, why in found if why]
        if bad:
            return shown(bad, NAMED, '; ')
        repeated = _repeated(section, (one['id'] for one in entries))
        if repeated:
            return repeated
    return ''


def read_json(path: str) -> tuple[Any, str]:
    """Content of a json file, or None and its error."""
    try:
        with open(path, encoding='utf-8') as stream:
            return json.load(stream), ''
    except UnicodeDecodeError as error:
        return None, f'it is no text in UTF-8 (byte {error.start})'
    except (ValueError, RecursionError) as error:
        return None, f'it is no valid JSON: {error}'


def _name(entry: Any) -> str:
    """Ids of an entry, in brackets."""
    if not isinstance(entry, dict):
        return ''
    keys = [key for key in ('id', 'image_id', 'file_name') if key in entry]
    return f' ({", ".join(f"{key} {reprlib.repr(entry[key])}" for key in keys)})' if keys else ''


def _entry_fault(entry: Any, check: Callable[[dict], str]) -> str:
    if not isinstance(entry, dict):
        return f'is {reprlib.repr(entry)}, where a mapping is needed'
    if not isinstance(entry.get('id'), (int, str)):
        return f'has id {reprlib.repr(entry["id"])}' if 'id' in entry else 'has no id'
    return check(entry)


def _image_fault(image: dict) -> str:
    if not isinstance(image.get('file_name'), str):
        return f'has no file_name but {image.get("file_name")!r}'
    for key in ('width', 'height'):
        if not _is_number(image.get(key)) or image[key] <= 0:
            return f'has {key} {image.get(key)!r}, where a number of pixels is needed'
    return ''


def _category_fault(category: dict) -> str:
    return '' if isinstance(category.get('name'), str) else 'has no name'


def _annotation_fault(annotation: dict) -> str:
    for key in ('image_id', 'category_id'):
        if not isinstance(annotation.get(key), (int, str)):
            return f'has {key} {reprlib.repr(annotation.get(key))}'
    return box_fault(annotation.get('bbox', 'missing')) or (
        ''
        if _is_number(annotation.get('area'))
        else f'has area {reprlib.repr(annotation.get("area", "missing"))}, where a number is needed'
    )


def box_fault(box: Any, corners: str = 'x, y, width, height') -> str:
    """The error of a box as a list of numbers; '' if there is none."""
    if isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_number, box)):
        return ''
    return f'has bbox {reprlib.repr(box)}, where four finite numbers are needed ({corners})'


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
