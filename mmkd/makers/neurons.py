"""Neurons: the channels of a teacher that tell identities apart, for taps that keep these alone."""

from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.config import load_config
from mmkd.datasets.embeddings import teacher_embeddings
from mmkd.engine.console.screen import current_screen
from mmkd.makers.networks import given_teacher
from mmkd.makers.neuron_scores import (
    attribute_cost,
    balanced_accuracy,
    cheapest,
    identity_cost,
    likeness,
    mean_field,
)
from mmkd.makers.pictures import entries_of
from mmkd.names import no_file
from mmkd.options import check_list, check_number
from mmkd.registry import MAKERS
from mmkd.teachers.cached import path_ends

OWNER = 'Neurons'


@MAKERS.register_module()
class Neurons(Maker):
    """Channels of a teacher's features that are worth learning, by their cost and their likeness.

    Luo et al., AAAI 2016: face model compression by distilling knowledge from neurons. The stage's
    ``teacher=`` sees its own training images under the validation's pipeline. A neuron costs little
    if it tells some attributes of identity well and no single one of nuisance; two that tell the
    same cost more together. ``channels.json`` is for a tap: ``'pool{channels.json}'``. Channels
    that are the same for all images are never chosen.

    Without a table of attributes the identities themselves, the classes of the training set, take
    their place: the cost is the variance inside of classes over that between them.

    Args:
        count (int | None): channels that are kept, the cheapest one after the other.
        theta (float | None): instead of ``count``: what a neuron is worth; those that the mean
            field keeps with a probability above 0.5.
        lam (float): weight of likeness; 0 is by cost alone.
        temperature (float): of the mean field.
        tap (str | None): the teacher's features, a vector or a map, which is averaged over places;
            None: the pooled features of a classifier.
        attributes (str | None): a CSV file whose columns are the image, by the end of its path, and
            attributes, 1 or 0 (or -1); its first line names them.
        identity, nuisance (list[str]): two or more of its columns each.

    Raises:
        ValueError: options out of range, or ``count`` and ``theta``; more channels than there are;
            no teacher; a table without these columns or images; attributes or classes of which
            fewer than two are left; features that are not finite.
        FileNotFoundError: no such table.
    """

    def __init__(
        self,
        count: int | None = None,
        theta: float | None = None,
        lam: float = 1.0,
        temperature: float = 0.1,
        tap: str | None = None,
        attributes: str | None = None,
        identity: Sequence[str] = (),
        nuisance: Sequence[str] = (),
    ) -> None:
        self.count = check_number(OWNER, 'count', count, 1, whole=True, optional=True)
        self.theta = check_number(OWNER, 'theta', theta, optional=True)
        if (count is None) == (theta is None):
            raise ValueError(
                'Neurons: give either count=, how many channels are kept, or theta=, what one is '
                'worth. Without either the least energy is that of none.'
            )
        self.lam = check_number(OWNER, 'lam', lam, 0)
        self.temperature = check_number(OWNER, 'temperature', temperature, above=0)
        self.tap, self.table = tap, attributes
        self.identity = [str(x) for x in check_list(OWNER, 'identity', identity)]
        self.nuisance = [str(x) for x in check_list(OWNER, 'nuisance', nuisance)]
        fewest = min(len(self.identity), len(self.nuisance))
        if bool(attributes) != bool(self.identity or self.nuisance) or (attributes and fewest < 2):
            raise ValueError(
                f'Neurons: attributes= is a table, of which identity= and nuisance= name two '
                f'columns or more each, found {self.identity} and {self.nuisance}.'
            )

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        source = given_teacher(OWNER, given)
        config = load_config(source.config)
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        values = teacher_embeddings(config, source.checkpoint, device=device, tap=self.tap)
        if not bool(values.isfinite().all()):
            raise ValueError(
                'Neurons: features of the teacher are not finite. Is its checkpoint sound?'
            )
        spoken = (values.amax(0) > values.amin(0)).nonzero()[:, 0]
        cost, scores = self._judged(values[:, spoken], entries_of(config))
        places = self._chosen(cost, likeness(scores))
        chosen = spoken[places].tolist()
        silent = values.shape[1] - len(spoken)
        current_screen().say(
            f'Neurons: {len(chosen)} of {values.shape[1]} channels, {silent} of which are silent'
        )
        path = osp.join(work_dir, 'channels.json')
        costs = [round(value, 6) for value in cost[places].tolist()]
        write_json(path, dict(channels=chosen, cost=costs, of=values.shape[1], silent=silent))
        return Product('', path, work_dir, dict(channels=len(chosen)))

    def _judged(self, values: Tensor, infos: list[dict]) -> tuple[Tensor, Tensor]:
        """The cost of each neuron (D,), and how well it tells each attribute or class (D, A)."""
        if self.table:
            columns = _read(self.table, [str(info.get('img_path', '')) for info in infos])
            groups = [_informative(self.table, columns, x) for x in (self.identity, self.nuisance)]
            has = torch.stack([columns[name] for group in groups for name in group], 1)
            scores = balanced_accuracy(values, has)
            places = list(range(has.shape[1]))
            split = len(groups[0])
            return attribute_cost(scores, places[:split], places[split:]), scores
        found = [info.get('gt_label') for info in infos]
        if None in found or len({*found}) < 2:
            raise ValueError(
                'Neurons: without attributes= the training images need classes, two at least. '
                'Name a table of attributes.'
            )
        labels = torch.tensor(found)
        has = labels[:, None] == labels.unique()
        return identity_cost(values, labels), balanced_accuracy(values, has)

    def _chosen(self, cost: Tensor, alike: Tensor) -> list[int]:
        usable = int(cost.isfinite().sum())
        if self.count is not None and self.count > usable:
            raise ValueError(
                f'Neurons: count={self.count}, but {usable} channels tell anything of identity. '
                'Lower count.'
            )
        if self.count is not None:
            return cheapest(cost, alike, self.lam, self.count)
        assert self.theta is not None
        marginals = mean_field(cost, alike, self.lam, self.theta, self.temperature)
        chosen = (marginals > 0.5).nonzero()[:, 0].tolist()
        if not chosen:
            raise ValueError(
                f'Neurons: no channel is worth its cost with theta={self.theta}; the lowest cost '
                f'is {float(cost.min()):.4g}. Raise theta, or give count=.'
            )
        return chosen


def _read(file: str, paths: list[str]) -> dict[str, Tensor]:
    """Attributes by name, (N,) bool each, in the order of the images."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'Neurons: {no_file(file, ".csv")}')
    with path.open(newline='') as opened:
        head, *lines = [row for row in csv.reader(opened) if row] or [[]]
    names = [name.strip() for name in head[1:]]
    rows: dict[str, list[Any]] = {line[0].strip(): line[1:] for line in lines}
    found = []
    for image in paths:
        end = next((end for end in path_ends(image) if end in rows), None)
        if end is None:
            raise ValueError(
                f'Neurons: image {image!r} is not in {file}, which has {", ".join([*rows][:3])}, ….'
            )
        values = [value.strip() for value in rows[end]]
        if len(values) != len(names) or not {*values} <= {'0', '1', '-1'}:
            raise ValueError(
                f'Neurons: {file} must have 1 or 0 (or -1) for each of {len(names)} attributes, '
                f'found {rows[end]} for {end}.'
            )
        found.append([value == '1' for value in values])
    return dict(zip(names, torch.tensor(found).T, strict=True))


def _informative(file: str, columns: Mapping[str, Tensor], names: list[str]) -> list[str]:
    """Those attributes that some images have and others have not."""
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise ValueError(
            f'Neurons: {file} has no attribute {", ".join(unknown)}, but {", ".join(columns)}.'
        )
    found = [name for name in names if 0 < int(columns[name].sum()) < len(columns[name])]
    if len(found) < 2:
        raise ValueError(
            f'Neurons: of {names} all images or none have {[n for n in names if n not in found]}; '
            'two attributes that tell images apart are needed. Name others.'
        )
    return found
