"""Specialists: which classes a generalist confuses, and a config for each group of them."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.checkpoint import atomic_file
from mmkd.config import calm_dataset, load_config
from mmkd.engine.runner import Runner
from mmkd.families import family_of
from mmkd.functional.clustering import kmeans, nearest
from mmkd.makers.networks import given_teacher, on_gpu
from mmkd.options import check_number
from mmkd.registry import MAKERS
from mmkd.teacher import Teacher

CONFIG = """# Written by mmkd's maker Specialists: {names} and a dustbin.
_base_ = [{base!r}]

load_from = {checkpoint!r}
classes = {classes!r}
model = dict(num_classes={outputs})
train_dataloader = dict(
    dataset=dict(_delete_=True, type='mmkd.SpecialistClasses', classes=classes, dataset={train})
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True, type='mmkd.SpecialistClasses', classes=classes, balanced=False, dataset={val}
    )
)
"""


def confusion_clusters(probabilities: Tensor, count: int, seed: int = 0) -> list[list[int]]:
    """Classes in groups: k-means on the columns of the covariance of predictions.

    Hinton et al. 2015, section 5.1. Classes that are predicted together have like columns.

    Args:
        probabilities (Tensor): (N, C), of a generalist.
        count (int): groups; those that stay empty are left out.
        seed (int): of k-means++.

    Returns:
        list[list[int]]: in the order of their first classes.
    """
    p = probabilities.double()
    centred = p - p.mean(0)
    columns = (centred.T @ centred / len(p)).float()
    labels = nearest(columns, kmeans(columns, count, seed, steps=50))
    groups = [(labels == i).nonzero()[:, 0].tolist() for i in range(count)]
    return sorted(group for group in groups if group)


@MAKERS.register_module()
class Specialists(Maker):
    """Groups of classes that a generalist confuses, each with the config of a specialist.

    Hinton et al. 2015, section 5: the generalist (the stage's ``teacher=``) looks at its own
    training images under the test pipeline. ``specialist_<i>.py`` starts from its weights, knows
    one group and a dustbin for the rest, and half of its images are of the group.
    ``specialists.json`` has, by name, the ``classes``, and the ``oversampling`` for
    ``mmkd.Ensemble(mean='specialists')``: how many times as often as the others, in proportion,
    images of the group are seen.

    Args:
        count (int): groups, at least 2; a group that stays empty has no specialist.
        seed (int): of k-means.

    Raises:
        ValueError: no generalist, or one that is no mmkd.Classifier; fewer classes than groups; one
            group of all classes; a group without images.
    """

    def __init__(self, count: int = 2, seed: int = 0) -> None:
        self.count = check_number('Specialists', 'count', count, 2, whole=True)
        self.seed = check_number('Specialists', 'seed', seed, 0, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        source = given_teacher('Specialists', given, 'generalist')
        config = load_config(source.config)
        teacher = Teacher(source.config, source.checkpoint)
        if family_of(teacher.model) != 'classifier' or 'num_classes' not in config.model:
            raise ValueError(
                f'Specialists needs an image classifier, mmkd.Classifier(num_classes=…), found '
                f'{type(teacher.model).__name__}.'
            )
        probabilities, labels, names = predictions(config, teacher)
        if len(names) < self.count:
            raise ValueError(
                f'Specialists: {self.count} groups of {len(names)} classes; ask for fewer.'
            )
        groups = confusion_clusters(probabilities, self.count, self.seed)
        if len(groups) < 2:
            raise ValueError(
                f'Specialists: all {len(names)} classes are in one group, so none is a '
                "specialist's. Try another seed or count, or a generalist that confuses some."
            )
        found = {}
        for number, group in enumerate(groups):
            own = [names[i] for i in group]
            share = float(torch.isin(labels, torch.tensor(group)).double().mean())
            if share == 0:
                raise ValueError(
                    f'Specialists: no training image of the generalist is of {", ".join(own)}, '
                    'which are one group, so its specialist has nothing to learn from. Add images '
                    'of them, or lower count.'
                )
            found[f'specialist_{number}'] = dict(classes=own, oversampling=(1 - share) / share)
            path = osp.join(work_dir, f'specialist_{number}.py')
            _write(path, config, source, own)
        path = osp.join(work_dir, 'specialists.json')
        write_json(path, found)
        return Product('', path, work_dir)


@torch.no_grad()
def predictions(config: Config, teacher: Teacher) -> tuple[Tensor, Tensor, list[str]]:
    """Class probabilities (N, C) of the training images, their labels (N,), and class names."""
    model = on_gpu(teacher.model)
    entry = dict(config.val_dataloader)
    entry['dataset'] = calm_dataset(config, test_mode=True)
    scope = config.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):
        loader = Runner.build_dataloader(entry, seed=0)
    rows, labels = [], []
    for data in loader:
        data = model.data_preprocessor(data, False)
        rows.append(model(data['inputs'], data['data_samples'], mode='tensor').softmax(1).cpu())
        labels += [int(sample.gt_label) for sample in data['data_samples']]
    return torch.cat(rows), torch.tensor(labels), list(loader.dataset.metainfo['classes'])


def _write(path: str, config: Config, source: Product, classes: list[str]) -> None:
    loaders: dict[str, Any] = {
        split: config[f'{split}_dataloader'].dataset.to_dict() for split in ('train', 'val')
    }
    base = source.config if '::' in source.config else osp.abspath(source.config)
    text = CONFIG.format(
        names=', '.join(classes),
        base=base,
        checkpoint=osp.abspath(source.checkpoint),
        classes=tuple(classes),
        outputs=len(classes) + 1,
        **loaders,
    )
    if config.get('test_dataloader'):
        text += 'test_dataloader = val_dataloader\n'
    with atomic_file(path) as part:
        Path(part).write_text(text)
