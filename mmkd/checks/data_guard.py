"""Puts the guard of mmkd.datasets on the datasets of a run."""

from __future__ import annotations

import os
from logging import WARNING
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmkd.datasets.loaders import length_of
from mmkd.datasets.protection import Audit, DataError, check_objects, leaves, protect
from mmkd.registry import HOOKS


@HOOKS.register_module()
class DataGuardHook(Hook):
    """Audit the datasets, drop degenerate boxes and skip unreadable training images.

    Errors and warnings are those of :func:`mmkd.datasets.protection.protect`. A training or
    validation set without any object, data that make no batch, and a metric with the annotations of
    other images are errors, too.
    """

    # Before the first batch is asked for, so before a worker holds a copy of the dataset.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        dataset = runner.train_dataloader.dataset
        pairs = zip(leaves(dataset), protect(dataset), strict=True)
        # Of images without labels other checks say who may learn from them.
        check_objects([found for one, found in pairs if not getattr(one, 'no_labels', False)])
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        check_batches('train_dataloader', runner.train_dataloader, ends=by_epoch)
        if runner.val_loop is not None:
            check_objects(_protect_evaluation('val', runner.val_dataloader, runner.val_evaluator))

    def before_test(self, runner: Any) -> None:
        _protect_evaluation('test', runner.test_dataloader, runner.test_evaluator)


def _protect_evaluation(split: str, loader: Any, evaluator: Any) -> list[Audit]:
    for one in leaves(loader.dataset):
        if getattr(one, 'test_mode', None) is False:
            print_log(
                f'{split}_dataloader: {type(one).__name__} has no test_mode=True, so it leaves out '
                'what filter_cfg says, and shows another image where one cannot be read',
                logger='current',
                level=WARNING,
            )
    reports = protect(loader.dataset)
    check_batches(f'{split}_dataloader', loader, ends=True)
    check_metrics(f'{split}_evaluator', evaluator, loader.dataset, reports)
    return reports


def check_batches(name: str, loader: Any, ends: bool) -> None:
    """Stop where the data make no batch, or a pass over them never ends.

    Args:
        name: Of the dataloader, in the config.
        loader: A ``DataLoader``; others are taken as they are.
        ends: Whether the loop waits for the end of a pass.

    Raises:
        ValueError: With the option to change.
    """
    if not isinstance(loader, DataLoader):
        return
    samplers = [loader.sampler, loader.batch_sampler]
    samplers.append(getattr(loader.batch_sampler, 'sampler', None))
    endless = [one for one in samplers if _is_endless(one)]
    if endless and ends:
        raise ValueError(
            f'{name}: {type(endless[0]).__name__} never ends, but the loop waits for the end of '
            "the data. Set sampler=dict(type='DefaultSampler', …), or train by iterations "
            "(train_cfg=dict(type='IterBasedTrainLoop', …))"
        )
    if length_of(loader) is None:
        return
    images = len(loader.sampler)
    if not images:
        raise ValueError(f'{name}: the dataset has no image; is it repeated 0 times?')
    if endless:
        return
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    if len(loader) == 0:
        raise ValueError(
            f'{name}: {images} image(s) make no batch of {size} with drop_last=True. Set '
            'drop_last=False, or a smaller batch_size'
        )
    if 'train' not in name and loader.drop_last and images % size:
        print_log(
            f'{name}: drop_last=True leaves {images % size} image(s) out of the evaluation',
            logger='current',
            level=WARNING,
        )


def _is_endless(sampler: Any) -> bool:
    """Whether a sampler is endless; those of mmdet have a method in common, not a class."""
    return isinstance(sampler, InfiniteSampler) or hasattr(sampler, '_infinite_indices')


def check_metrics(name: str, evaluator: Any, dataset: Any, reports: list[Audit]) -> None:
    """Stop if the annotation file of a COCO metric is of other images or classes than the data.

    Raises:
        DataError: The evaluation would end in an assertion, or score other classes.
    """
    paths = {key: path for one in reports for key, (path, _) in one.ids.items()}
    for metric in evaluator.metrics:
        coco = getattr(metric, '_coco_api', None)
        if coco is None or not paths:
            continue
        where = f'{name}: the ann_file of {type(metric).__name__}'
        unknown = sorted(paths.keys() - coco.imgs.keys(), key=str)
        if unknown:
            raise DataError(
                f'{where} has no image with the id {unknown[0]!r}, which {reports[0].name} has '
                f'({len(unknown)} such images). Give both the same file'
            )
        for one in leaves(dataset):
            expected = coco.get_cat_ids(cat_names=list(one.metainfo.get('classes') or ()))
            if list(getattr(one, 'cat_ids', expected)) != list(expected):
                raise DataError(
                    f'{where} has the category ids {expected} for the classes, {reports[0].name} '
                    f'has {one.cat_ids}. Give both the same file'
                )
        notes = [_other_file(coco.imgs, paths)]
        rest = len(coco.imgs) - len(paths)
        if rest and getattr(metric, 'img_ids', None) is None:
            notes.append(
                f'has {rest} image(s) that the data do not show, and scores them as if nothing had '
                'been found there'
            )
        for text in filter(None, notes):
            print_log(f'{where} {text}', logger='current', level=WARNING)


def _other_file(images: dict, paths: dict) -> str:
    """Report an id that means another file in the data."""
    for key, path in paths.items():
        said = images[key].get('file_name')
        if said and isinstance(path, str) and os.path.basename(said) != os.path.basename(path):
            return f'calls the image {key!r} {said}, but the data {path}: are both of one split?'
    return ''
