"""Writes proposals of all images of a folder, by selective search.

python -m mmkd.datasets.selective_search data/VOC2007/JPEGImages --out proposals.pkl
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmkd.checkpoint import atomic_file
from mmkd.datasets.proposals import key_of

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')


def searcher(fast: bool = True) -> Any:
    """OpenCV's selective search (Uijlings et al., IJCV 2013): a function from images to boxes.

    Raises:
        ImportError: OpenCV without its contrib modules.
    """
    if not hasattr(cv2, 'ximgproc'):
        raise ImportError(
            "selective search is in OpenCV's contrib package, which has the plain one's modules "
            'too and takes its place: pip uninstall opencv-python opencv-python-headless, then '
            'pip install opencv-contrib-python-headless. Without it mmkd.GridProposals gives '
            'boxes at even distances.'
        )
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()

    def run(image: np.ndarray) -> np.ndarray:
        search.setBaseImage(image)
        if fast:
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        return search.process()

    return run


def tidy(boxes: np.ndarray, least: int = 20, most: int = 2000) -> np.ndarray:
    """(x, y, w, h) -> (x1, y1, x2, y2) float32, largest first, without doubles.

    Selective search gives the same boxes in another order each time, so they are sorted.

    Args:
        boxes (np.ndarray): (n, 4) integers.
        least (int): boxes with a shorter side are dropped.
        most (int): boxes that are kept.
    """
    boxes = np.unique(np.asarray(boxes, np.int64).reshape(-1, 4), axis=0)
    boxes = boxes[(boxes[:, 2:] >= least).all(1)]
    x, y, w, h = boxes.T
    boxes = boxes[np.lexsort((h, y, x, -w * h))][:most]
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1).astype(np.float32)


def write_proposals(
    images: Iterable[Path], out: str | Path, search: Any, least: int = 20, most: int = 2000
) -> int:
    """Search all images and write the file that ``mmkd.LoadProposals`` reads; returns their number.

    Raises:
        ValueError: an image that cannot be read, or two of the same folder and name.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in images:
        image = cv2.imread(str(path))
        if image is None:
            raise ValueError(f'{path} cannot be read as an image.')
        key = key_of(str(path.absolute()))
        if key in found:
            raise ValueError(
                f'{path}: there is another image of the name {key}, which is how proposals are '
                'found. Search folders of one name one by one, into files of their own.'
            )
        boxes = tidy(search(image), least, most)
        found[key] = dict(bboxes=boxes, scores=np.ones(len(boxes), np.float32))
    with atomic_file(str(out)) as part:
        Path(part).write_bytes(pickle.dumps(found))
    return len(found)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m mmkd.datasets.selective_search', description=__doc__
    )
    parser.add_argument('images', type=Path, help='folder, searched with all below it')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--quality', action='store_true', help='more boxes, several times slower')
    parser.add_argument('--least', type=int, default=20, help='shortest side (%(default)s)')
    parser.add_argument('--most', type=int, default=2000, help='boxes of an image (%(default)s)')
    args = parser.parse_args(argv)
    paths = sorted(p for p in args.images.rglob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f'no images in {args.images}')
    try:
        count = write_proposals(paths, args.out, searcher(not args.quality), args.least, args.most)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    print(f'proposals of {count} images in {args.out}')


if __name__ == '__main__':
    main()
