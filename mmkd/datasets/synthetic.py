"""Writes synthetic datasets in the layouts of COCO, VOC, Cityscapes and class folders.

python -m mmkd.datasets.synthetic coco data/shapes --train 200 --val 50 --size 256 192
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np

from mmkd.datasets.scenes import CLASSES, Scene, generate_scene

MARKER = '.mmkd-synthetic.json'
VERSION = 1  # raise it when the pixels change, so that old folders are written anew
IGNORE = 255  # label of the seam around objects in the segmentation masks
OBJECTS, SCALE = (3, 8), (0.13, 0.5)  # number of objects; their diameters in shares of a side


def write_coco(
    root, n_train=200, n_val=50, seed=0, size=(256, 192), objects=OBJECTS, scale=SCALE
) -> Path:
    """Write ``{train,val}/*.jpg`` and ``annotations/{train,val}.json``; returns ``root``.

    Annotations carry bbox (x, y, w, h), area, iscrowd 0, polygons and category ids 1 to 5.
    ``objects`` are the smallest and largest number in an image, ``scale`` the smallest and largest
    diameter in shares of the shorter side, before the image's edge cuts an object.

    Raises:
        FileExistsError: ``root`` holds anything but an earlier result of this same function.
    """

    def write(folder: Path, scenes: Callable) -> None:
        for split in ('train', 'val'):
            (folder / split).mkdir()
            info = dict(description='mmkd synthetic scenes')
            content: dict[str, Any] = dict(info=info, licenses=[])
            content.update(images=[], annotations=[])
            content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
            for index, scene in scenes(split):
                name = f'{index:06d}.jpg'
                _save(folder / split / name, scene.image)
                height, width = scene.image.shape[:2]
                image = dict(id=index, file_name=name, width=width, height=height)
                content['images'].append(image)
                content['annotations'] += _annotations(scene, index, len(content['annotations']))
            target = folder / 'annotations' / f'{split}.json'
            target.parent.mkdir(exist_ok=True)
            target.write_text(json.dumps(content))

    return _write('coco', root, n_train, n_val, seed, size, write, objects, scale)


def write_voc(
    root, n_train=200, n_val=50, seed=0, size=(256, 192), objects=OBJECTS, scale=SCALE
) -> Path:
    """Write ``VOC2007/{Annotations,JPEGImages,ImageSets/Main}``; returns ``root``.

    The splits are train, val, trainval (both) and test (= val). Coordinates are VOC's: counted
    from 1, the last pixel included.

    Raises:
        FileExistsError: ``root`` holds anything but an earlier result of this same function.
    """

    def write(folder: Path, scenes: Callable) -> None:
        home = folder / 'VOC2007'
        for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
            (home / name).mkdir(parents=True)
        ids: dict[str, list[str]] = {}
        for split in ('train', 'val'):
            ids[split] = []
            for index, scene in scenes(split):
                name = f'{index + (n_train if split == "val" else 0):06d}'
                ids[split].append(name)
                _save(home / 'JPEGImages' / f'{name}.jpg', scene.image)
                (home / 'Annotations' / f'{name}.xml').write_text(_voc_xml(name, scene))
        ids.update(trainval=ids['train'] + ids['val'], test=ids['val'])
        for split, names in ids.items():
            (home / 'ImageSets/Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')

    return _write('voc', root, n_train, n_val, seed, size, write, objects, scale)


def write_cityscapes(
    root, n_train=200, n_val=50, seed=0, size=(256, 192), objects=OBJECTS, scale=SCALE
) -> Path:
    """Write ``leftImg8bit`` and ``gtFine`` with ``{train,val}/shapes`` folders; returns ``root``.

    Ground is train id 0 and the five shapes are 1 to 5 of Cityscapes' 19; a one-pixel seam around
    every object is 255, to be ignored.

    Raises:
        FileExistsError: ``root`` holds anything but an earlier result of this same function.
    """

    def write(folder: Path, scenes: Callable) -> None:
        for split in ('train', 'val'):
            images, labels = (
                folder / kind / split / 'shapes' for kind in ('leftImg8bit', 'gtFine')
            )
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for index, scene in scenes(split):
                name = f'shapes_{index:06d}_000019'
                _save(images / f'{name}_leftImg8bit.png', scene.image)
                _save(labels / f'{name}_gtFine_labelTrainIds.png', label_map(scene))

    return _write('cityscapes', root, n_train, n_val, seed, size, write, objects, scale)


def write_folders(root, n_train=200, n_val=50, seed=0, size=(64, 64)) -> Path:
    """Write ``{train,val}/<class>/*.jpg``, one object each, classes in turn; returns ``root``.

    Raises:
        FileExistsError: ``root`` holds anything but an earlier result of this same function.
    """

    def write(folder: Path, scenes: Callable) -> None:
        for split in ('train', 'val'):
            for name in CLASSES:
                (folder / split / name).mkdir(parents=True)
            for index, scene in scenes(split, single=True):
                home = folder / split / CLASSES[index % len(CLASSES)]
                _save(home / f'{index:06d}.jpg', scene.image)

    return _write('folders', root, n_train, n_val, seed, size, write)


WRITERS = dict(coco=write_coco, voc=write_voc, cityscapes=write_cityscapes, folders=write_folders)


def label_map(scene: Scene) -> np.ndarray:
    """Segmentation labels (H, W) uint8: 0 ground, 1 + class, 255 on the seam of objects."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    seam = np.zeros(labels.shape, bool)
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        labels[mask] = label + 1
        seam |= mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    labels[seam] = IGNORE
    return labels


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons [x0, y0, x1, y1, ...] of a mask (H, W) bool.

    COCO's polygons know no holes, so a hole is cut in through a slit of no width.
    """
    # Contours run through pixel centres; four times the size brings them near the pixels' edges.
    fine = cv2.resize(mask.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    loops, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    result = []
    for loop, (_, _, child, parent) in zip(loops, tree[0] if loops else (), strict=True):
        if parent >= 0 or len(loop) < 3:
            continue
        parts = [loop]
        while child >= 0:
            hole = loops[child]
            parts += [loop[:1], hole, hole[:1], loop[:1]]
            child = tree[0][child][0]
        points = (np.concatenate(parts).reshape(-1) + 0.5) / 4
        result.append([round(float(value), 2) for value in points])
    return result


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of one scene; ids start after ``first_id``."""
    result = []
    for i, (box, label, mask) in enumerate(
        zip(scene.boxes.tolist(), scene.labels.tolist(), scene.masks, strict=True)
    ):
        x1, y1, x2, y2 = box
        result.append(
            dict(
                id=first_id + i + 1,
                image_id=image_id,
                category_id=label + 1,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                area=int(mask.sum()),
                iscrowd=0,
                segmentation=polygons(mask) or [[x1, y1, x2, y1, x2, y2, x1, y2]],
            )
        )
    return result


def _voc_xml(name: str, scene: Scene) -> str:
    """The annotation file of one scene."""
    height, width = scene.image.shape[:2]
    objects = ''.join(
        f'<object><name>{escape(CLASSES[label])}</name><truncated>0</truncated>'
        f'<difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>'
        f'<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n'
        for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int), scene.labels, strict=True)
    )
    return (
        f'<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>'
        f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n'
        f'{objects}</annotation>\n'
    )


def _write(
    kind, root, n_train, n_val, seed, size, write: Callable, objects=OBJECTS, scale=SCALE
) -> Path:
    """Run ``write(folder, scenes)`` in a scratch folder and move it to ``root`` when complete."""
    root = Path(root)
    wanted = dict(kind=kind, version=VERSION, train=n_train, val=n_val, seed=seed, size=list(size))
    low, high = objects
    if not 1 <= low <= high:
        raise ValueError(f'objects must be two numbers in order, at least 1, got {low} and {high}')
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(
            f'scale must be two numbers in order, above 0, got {scale[0]} and {scale[1]}'
        )
    if (low, high) != OBJECTS:  # folders of earlier versions have no entry
        wanted['objects'] = [low, high]
    if tuple(scale) != SCALE:
        wanted['scale'] = list(scale)
    marker = root / MARKER
    found = json.loads(marker.read_text()) if marker.exists() else None
    if found == wanted:
        return root
    mine = found is not None and found['kind'] == kind
    if not mine and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f'{root} holds other data; give {kind} a folder of its own')

    def scenes(split: str, single: bool = False) -> Iterator[tuple[int, Scene]]:
        for index in range(dict(train=n_train, val=n_val)[split]):
            # Seeded per image: the first N images do not depend on how many follow.
            rng = np.random.default_rng([seed, split == 'val', index])
            options: dict[str, Any] = dict(scale=tuple(scale)) if 'scale' in wanted else {}
            if single:
                options = dict(labels=[index % len(CLASSES)], scale=(0.5, 0.85), centred=True)
            elif 'objects' in wanted:
                count = rng.integers(low, high + 1)
                options['labels'] = rng.integers(len(CLASSES), size=count).tolist()
            yield index, generate_scene(rng, tuple(size), **options)

    scratch = root.absolute().parent / f'.{root.absolute().name}.part'
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    write(scratch, scenes)
    (scratch / MARKER).write_text(json.dumps(wanted))
    if root.exists():
        shutil.rmtree(root)
    scratch.rename(root)
    return root


def _save(path: Path, image: np.ndarray) -> None:
    """Write an image, as cv2 does, but fail if it cannot."""
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m mmkd.datasets.synthetic', description=__doc__)
    parser.add_argument('layout', choices=WRITERS)
    parser.add_argument('out', help='folder to create; left alone if it is complete already')
    parser.add_argument('--train', type=int, default=200, help='training images (%(default)s)')
    parser.add_argument('--val', type=int, default=50, help='validation images (%(default)s)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--objects', type=int, nargs=2, metavar=('LEAST', 'MOST'), help='3 8')
    parser.add_argument(
        '--scale',
        type=float,
        nargs=2,
        metavar=('LEAST', 'MOST'),
        help='diameters of objects in shares of the shorter side, 0.13 0.5',
    )
    args = parser.parse_args(argv)
    options = {k: tuple(v) for k in ('size', 'objects', 'scale') if (v := getattr(args, k))}
    if args.layout == 'folders' and (args.objects or args.scale):
        parser.error(
            'an image in class folders has one large object; leave --objects and --scale out'
        )
    try:
        WRITERS[args.layout](args.out, args.train, args.val, args.seed, **options)
    except (FileExistsError, ValueError) as error:
        parser.error(str(error))
    print(f'{args.layout}: {args.train} training and {args.val} validation images in {args.out}')


if __name__ == '__main__':
    main()
