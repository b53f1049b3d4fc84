"""Checks of a dataset's config before anything is loaded."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmkd.checkpoint import CheckpointError, check_plain, trusted
from mmkd.config import dataset_leaves
from mmkd.datasets._class_names import Names, read_names
from mmkd.datasets._files import fault, is_remote, shown
from mmkd.datasets._kinds import is_coco, is_voc
from mmkd.datasets._voc import check_list

IMAGES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def check_paths(dataset_cfg: Mapping, scope: str | None = None) -> None:
    """Stop before building a dataset whose files are not there or of which nothing would remain.

    Looks inside wrappers (``dataset=``, ``datasets=``) and instantiates each dataset lazily, so
    that paths are joined as the class itself does. Remote paths are not checked.

    Args:
        dataset_cfg: A ``*_dataloader.dataset`` of a config.
        scope: The config's ``default_scope``, for type names without one.

    Raises:
        FileNotFoundError: A folder or annotation file is missing. The message has what was asked
            for, where it was looked for, how far that path exists and what to try.
        OSError: An annotation file is a directory, a device or a pipe, or may not be read.
        ValueError: An annotation file is empty, cut off or malformed, lists no image, or names
            none of the dataset's classes.
    """
    for cfg in dataset_leaves(dataset_cfg):
        _check_decoding(cfg)
        # A config that cannot be instantiated is for the real build to complain about.
        dataset = _build_lazily(cfg, scope)
        if dataset is not None:
            check_files(dataset, cfg)
            check_not_empty(dataset)


def _check_decoding(cfg: Mapping) -> None:
    """Stop at what would unpickle images, and at mmdet's tree of classes if it is a pickle."""
    if not trusted():
        for step in cfg.get('pipeline') or []:
            if isinstance(step, Mapping) and step.get('decode_backend') == 'pickle':
                raise CheckpointError(
                    f"{step.get('type')} has decode_backend='pickle', and a pickle can run any "
                    "program. Store arrays and say 'numpy', or pass --trust-checkpoint."
                )
    tree = cfg.get('hierarchy_file')
    if isinstance(tree, str) and os.path.isfile(tree):
        check_plain(tree)


def check_evaluator(evaluator_cfg: Mapping | list, data_root: str | None = None) -> None:
    """The same for the ``ann_file`` of metrics, a path of its own that ``data_root`` does not move.

    Args:
        evaluator_cfg: ``val_evaluator`` or ``test_evaluator`` of a config.
        data_root: That of the dataset, for the advice.

    Raises:
        FileNotFoundError: The file of a metric is missing.
        OSError, ValueError: It cannot be read, or is cut off.
    """
    for cfg in [evaluator_cfg] if isinstance(evaluator_cfg, Mapping) else evaluator_cfg or []:
        path = cfg.get('ann_file')
        if not path or is_remote(path, cfg):
            continue
        owner = f'metric {cfg.get("type")}'
        if not os.path.exists(path):
            advice = f'set ann_file of the evaluator; the dataset uses data_root={data_root!r}'
            raise FileNotFoundError(_missing(owner, [('ann_file', path, path)], advice))
        _check_annotation_file(owner, path)


def check_files(dataset, cfg: Mapping | None = None) -> None:
    """Stop if a folder or file of a dataset does not exist.

    Args:
        dataset: Any mmengine ``BaseDataset``, loaded or lazy.
        cfg: Its config, to quote paths as they were written.

    Raises:
        FileNotFoundError: See ``check_paths``.
    """
    cfg = cfg or vars(dataset)
    prefixes = cfg.get('data_prefix') or {}
    wanted = [
        ('data_root', None, dataset.data_root),
        ('ann_file', cfg.get('ann_file'), dataset.ann_file),
    ]
    wanted += [
        (f'data_prefix.{k}', prefixes.get(k), path) for k, path in dataset.data_prefix.items()
    ]
    if is_voc(dataset):
        for folder in (dataset.img_subdir, dataset.ann_subdir):
            wanted.append(('folder', folder, os.path.join(dataset.sub_data_root, folder)))
    missing: list[tuple] = []
    for name, asked, path in wanted:
        # What lies below a missing folder is not worth a line of its own.
        known = any(f'{path}/'.startswith(f'{one[2].rstrip("/")}/') for one in missing)
        local = isinstance(path, str) and path and not is_remote(path, cfg)
        if local and not known and not os.path.exists(path):
            missing.append((name, asked or path, path))
    if missing:
        below = ', '.join(dict.fromkeys(asked for _, asked, _ in wanted if asked)) or 'the data'
        advice = f'set data_root of this dataset to the folder that has {below}'
        advice = getattr(dataset, 'advice', advice)
        raise FileNotFoundError(_missing(f'dataset {type(dataset).__name__}', missing, advice))


def check_not_empty(dataset) -> None:
    """Stop if nothing would be left to load; mmengine fails there with numpy's complaint.

    Raises:
        ValueError: See ``check_paths``.
    """
    path = dataset.ann_file
    classes = dataset.metainfo.get('classes')
    if isinstance(classes, str):
        raise ValueError(
            f'dataset {type(dataset).__name__}: metainfo.classes is the text {classes!r}, of which '
            f'each letter would be a class. Write ({classes!r},), with the comma'
        )
    owner = f'dataset {type(dataset).__name__}'
    if is_remote(path or '', vars(dataset)):
        return
    folders = hasattr(dataset, 'img_suffix') and hasattr(dataset, 'seg_map_suffix')
    for extra in filter(None, [getattr(dataset, 'proposal_file', None)]):
        extra = os.path.join(dataset.data_root or '', extra)
        if os.path.exists(extra):
            _check_annotation_file(owner, extra)
    if path and not (folders and os.path.isdir(path)):  # which mmseg takes for no list
        _check_annotation_file(owner, path)
    elif folders:
        _check_suffix(owner, dataset)
    if is_voc(dataset):
        check_list(dataset)
    if is_coco(dataset) or is_voc(dataset):
        check_names(dataset, read_names(dataset, time.monotonic() + 0.3))


def _check_annotation_file(owner: str, path: str) -> None:
    problem = fault(path)
    if problem == 'the file is empty':
        raise ValueError(f'{owner}: annotation file {path} is empty')
    if problem:
        raise OSError(f'{owner}: annotation file {path} cannot be read: {problem}')
    if path.endswith('.json') and _last_character(path) not in b'}]':
        raise ValueError(f'{owner}: annotation file {path} is cut off')
    check_plain(path)


def _check_suffix(owner: str, dataset) -> None:
    """Stop if no image has the suffix, and warn of images that it leaves out."""
    folder, suffix = dataset.data_prefix.get('img_path') or '', dataset.img_suffix
    if not os.path.isdir(folder):
        return
    labels = os.path.splitext(dataset.seg_map_suffix)[1]
    names = [name for _, _, names in os.walk(folder, followlinks=True) for name in names]
    endings = Counter(os.path.splitext(name)[1] for name in names if not name.endswith(suffix))
    others = {k: n for k, n in endings.items() if k.lower() in IMAGES and k != labels}
    found = shown(f'{count} in {key!r}' for key, count in others.items())
    if not any(name.endswith(suffix) for name in names):
        raise ValueError(
            f'{owner}: no file in {os.path.abspath(folder)} ends in {suffix!r}; try another '
            f'img_suffix ({f"images there end: {found}" if found else "no image is there"})'
        )
    if others:
        print_log(
            f'{owner}: img_suffix={suffix!r} leaves out images in {os.path.abspath(folder)} '
            f'that end in something else: {found}',
            logger='current',
            level=logging.WARNING,
        )


def check_names(dataset, names: Names | None) -> None:
    """Stop if an annotation file has none of the classes of the dataset.

    Raises:
        ValueError: With both lists.
    """
    classes = dataset.metainfo.get('classes')
    if names is None or not names.complete or not names.counts or not classes:
        return
    if not set(classes) & set(names.counts):
        raise ValueError(
            f'dataset {type(dataset).__name__}: none of its classes occurs in {dataset.ann_file}\n'
            f'  classes of the dataset: {_some(classes)}\n'
            f'  names in the file:      {_some(names.counts)}\n'
            f'  try: metainfo=dict(classes=(...)) with the names of the file'
        )


def _build_lazily(cfg: Mapping, scope: str | None):
    try:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            return registry.build({**cfg, 'lazy_init': True, 'pipeline': []})
    except Exception:
        return None


def _missing(owner: str, missing: list[tuple], advice: str) -> str:
    lines = [f'{owner}: {len(missing)} path(s) not found']
    for name, asked, path in missing:
        lines.append(f'  {name}={str(asked)!r} -> {os.path.abspath(path)}')
    parent = os.path.abspath(missing[0][2])
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    try:
        inside = _some(sorted(os.listdir(parent))) if os.path.isdir(parent) else 'a file'
    except PermissionError:
        inside = 'permission to look into it is missing'
    lines.append(f'  exists up to: {parent} ({inside or "empty"})')
    return '\n'.join([*lines, f'  try: {advice}'])


def _some(names, limit: int = 12) -> str:
    names = list(names)
    more = f', … {len(names)} in all' if len(names) > limit else ''
    return ', '.join(map(str, names[:limit])) + more


def _last_character(path: str) -> bytes:
    with open(path, 'rb') as stream:
        stream.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        return stream.read().rstrip()[-1:] or b' '
