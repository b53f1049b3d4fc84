"""Errors in the files of a VOC dataset."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection
from typing import Any
from xml.etree import ElementTree

from mmkd.datasets._coco import DataError
from mmkd.datasets._files import fault, shown, similar
from mmkd.datasets._pictures import read_header

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def voc_files(dataset: Any) -> dict[str, str]:
    """Entry of the list -> annotation file, in their order; reads the list.

    Raises:
        DataError: The list is no text.
    """
    # As mmengine reads it: Windows line ends go, spaces stay part of the name.
    try:
        with open(dataset.ann_file, encoding='utf-8') as stream:
            names = [line.rstrip('\r\n') for line in stream]
    except UnicodeDecodeError as error:
        raise DataError(
            f'annotation file {dataset.ann_file}: it is no text in UTF-8 (byte {error.start})'
        ) from None
    folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
    return {name: os.path.join(folder, f'{name}.xml') for name in names}


def check_list(dataset: Any) -> None:
    """Stop if an entry of the list has no annotation file.

    Raises:
        FileNotFoundError: With the entry, and what to look at.
    """
    for name, path in voc_files(dataset).items():
        problem = fault(path)
        if problem:
            line = 'an empty line' if not name.strip() else f'the entry {name!r}'
            hint = '; a list has one name a line' if len(name.split()) > 1 else similar(path)
            hint = '; save the list without a byte order mark' if name[:1] == '\ufeff' else hint
            raise FileNotFoundError(
                f'dataset {type(dataset).__name__}: {dataset.ann_file} has {line}, whose '
                f'annotation file {path} cannot be read: {problem}{hint}'
            )


def find_fault(path: str, classes: Collection[str], image: str) -> str:
    """Entries of an annotation file that its loader cannot use; '' if none is found.

    Args:
        path: The XML file.
        classes: Names of the dataset's classes; objects of others are not read.
        image: The image, which is opened where the file does not say its size.
    """
    problem = fault(path)
    if problem:
        return problem
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return f'it is not well-formed XML: {error}'
    size = root.find('size')
    if size is None:
        problem = fault(image) or ('' if _has_size(image) else 'it cannot be decoded')
        if problem:
            return f'it has no size, which image {image} would have to tell: {problem}'
    else:
        for key in ('width', 'height'):
            if not _is(int, size.findtext(key)):
                return f'size has {key} {size.findtext(key)!r}, where a whole number is needed'
    found = [(i, one, _object_fault(one, classes)) for i, one in enumerate(root.iterfind('object'))]
    return shown((f'object[{i}] ({one.findtext("name")}) {why}' for i, one, why in found if why), 3)


def _has_size(image: str) -> bool:
    header = read_header(image)
    return header is not None and header.complete


def _object_fault(one: ElementTree.Element, classes: Collection[str]) -> str:
    name = one.findtext('name')
    if name is None:
        return 'has no name'
    if name not in classes:
        return ''
    if one.find('difficult') is not None and not _is(int, one.findtext('difficult')):
        return f'has difficult {one.findtext("difficult")!r}, where 0 or 1 is needed'
    box = one.find('bndbox')
    if box is None:
        return 'has no bndbox'
    for key in CORNERS:
        # Neither NaN nor infinity becomes an integer.
        if not _is(lambda text: int(float(text)), box.findtext(key)):
            return f'has {key} {reprlib.repr(box.findtext(key))}, where a number is needed'
    return ''


def _is(kind: Any, text: str | None) -> bool:
    try:
        kind(text)
    except (TypeError, ValueError, OverflowError):
        return False
    return True
