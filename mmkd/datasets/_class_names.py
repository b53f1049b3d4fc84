"""Class names that annotation files use, found without loading the files as a whole."""

from __future__ import annotations

import json
import mmap
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from mmkd.datasets._kinds import is_coco, is_voc, shuffled
from mmkd.datasets._voc import voc_files


@dataclass(frozen=True)
class Names:
    """Class names of an annotation file.

    Attributes:
        counts: Boxes per name, in the file's order; None where they were not counted.
        files: Annotation files read.
        complete: Whether that was all of them.
    """

    counts: dict[str, int | None]
    files: int
    complete: bool


def read_names(dataset, deadline: float) -> Names | None:
    """Class names in the annotation files of a dataset, loaded or not; None if it has none.

    Args:
        dataset: A ``BaseDataset`` whose ``ann_file`` and prefixes are joined already.
        deadline: ``time.monotonic()`` after which no further XML file is opened.

    Raises:
        ValueError: If an XML file cannot be parsed.
    """
    if is_coco(dataset):
        categories = coco_categories(dataset.ann_file)
        # Loaded datasets keep one image id per annotation, unknown categories included.
        used = getattr(dataset, 'cat_img_map', None)
        if categories is None:
            return None
        counts: dict[str, int | None] = {}
        for key, name in categories.items():
            counts[name] = (
                None if used is None else (counts.get(name) or 0) + len(used.get(key, ()))
            )
        return Names(counts, 1, True)
    if is_voc(dataset):
        paths = list(voc_files(dataset).values())
        return voc_names([paths[i] for i in shuffled(len(paths))], deadline)
    return None


def coco_categories(path: str) -> dict[int, str] | None:
    """``categories`` of a COCO json as {id: name}, or None if there is no such list.

    The list is decoded on its own: a file of several hundred megabytes costs milliseconds, since
    COCO's writers put it last or, some, first.
    """
    key, decoder = b'"categories"', json.JSONDecoder()
    with open(path, 'rb') as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for position in {text.rfind(key), text.find(key)} - {-1}:
            start = text.find(b'[', position)
            # Longer than any list of categories, shorter than a file worth avoiding.
            piece = text[start : start + (8 << 20)].decode('utf-8', 'replace')
            try:
                found = decoder.raw_decode(piece)[0]
                return {one['id']: one['name'] for one in found}
            except (ValueError, TypeError, KeyError):
                continue
    return None


def voc_names(paths: Iterable[str], deadline: float) -> Names:
    """Count the object names in VOC files until ``deadline`` (``time.monotonic()``).

    A file that does not exist is passed over. At least one file is read.

    Raises:
        ValueError: If a file is not well-formed XML; the message names it.
    """
    counts: Counter[str] = Counter()
    files, complete = 0, True
    for path in paths:
        if files and time.monotonic() > deadline:
            complete = False
            break
        try:
            root = ElementTree.parse(path).getroot()
        except FileNotFoundError:
            continue
        except ElementTree.ParseError as error:
            raise ValueError(f'annotation file {path} is not well-formed XML: {error}') from None
        counts.update(one.findtext('name', '') for one in root.iterfind('object'))
        files += 1
    return Names(dict(counts), files, complete)
