"""Queries of a black box: each image is written and asked once, answers are kept as they come."""

from __future__ import annotations

import json
import os
import os.path as osp
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from torch import Tensor, nn

from mmkd.chain.product import write_json
from mmkd.checkpoint import atomic_file
from mmkd.engine.console.screen import current_screen
from mmkd.families import classifier
from mmkd.makers.label_folder import write_compact
from mmkd.makers.networks import on_gpu
from mmkd.makers.pictures import seen_by
from mmkd.tap import Tap
from mmkd.teacher import Teacher
from mmkd.teachers.cached import read_scores
from mmkd.teachers.stand_in import count_classes, scores_tap

ANSWERS = 'answers.npz'
#: images of one query of a black box, and so what a kill may cost
BATCH = 64
#: of an image that is no mixture, in place of its second one
ALONE = -1


class Asked:
    """Everything that a black box was asked so far: images of a pool, and mixtures of two of them.

    Attributes:
        first, second (ndarray): (n,) int64, places in the pool; ``second`` is -1 for a pool's image
            itself.
        share (ndarray): (n,) float32, of the first in the mixture.
        keys (list[str]): paths of the image files, from the folder of the file of answers.
        scores (ndarray): (n, K) float32, probabilities.
    """

    def __init__(self, first: Any, second: Any, share: Any, keys: list[str], scores: Any) -> None:
        self.first, self.second = np.asarray(first, np.int64), np.asarray(second, np.int64)
        self.share, self.scores = np.asarray(share, np.float32), np.asarray(scores, np.float32)
        self.keys = keys

    @classmethod
    def none(cls, classes: int) -> Asked:
        """Nothing yet, in K classes."""
        return cls([], [], [], [], np.zeros((0, classes)))

    @classmethod
    def read(cls, owner: str, file: str, pool: str, classes: int) -> Asked:
        """Those in a file of answers.

        Args:
            pool (str): what :meth:`write` was given.
            classes (int): K.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file; other images; another number of classes.
        """
        held = read_scores(owner, file)
        if not {'first', 'second', 'share', 'pool'} <= set(held):
            raise ValueError(f'{owner}: {file} was not written by mmkd make {owner}.')
        if str(held['pool']) != pool:
            raise ValueError(
                f'{owner}: the answers in {file} are of other images than those of config=. Name '
                'the config with which they were asked.'
            )
        scores = held['scores']
        if scores.shape[1:] != (classes,):
            raise ValueError(
                f'{owner}: the answers in {file} have {scores.shape[-1]} classes and the student '
                f'has {classes}. Both must know the same.'
            )
        return cls(held['first'], held['second'], held['share'], held['keys'], scores)

    @property
    def alone(self) -> np.ndarray:
        """Places in the pool of images that were asked as they are."""
        return self.first[self.second == ALONE]

    def write(self, file: str, pool: str, names: tuple[str, ...]) -> None:
        """All as one file, the ``answers`` of ``mmkd.AnsweredImages``."""
        held = dict(
            keys=np.array(self.keys, str),
            scores=self.scores,
            classes=np.array(names, str),
            first=self.first,
            second=self.second,
            share=self.share,
            pool=np.array(pool),
        )
        _save(file, held)

    def moved(self, before: str, after: str) -> Asked:
        """With the keys as they are from another folder."""
        keys = [osp.relpath(osp.join(before, key), after).replace(os.sep, '/') for key in self.keys]
        return Asked(self.first, self.second, self.share, keys, self.scores)

    def __add__(self, other: Asked) -> Asked:
        pairs = [
            np.concatenate((getattr(self, n), getattr(other, n)))
            for n in ('first', 'second', 'share', 'scores')
        ]
        return Asked(*pairs[:3], [*self.keys, *other.keys], pairs[3])

    def __len__(self) -> int:
        return len(self.keys)


def _save(file: str, held: Mapping[str, Any]) -> None:
    with atomic_file(file) as part, open(part, 'wb') as opened:
        np.savez(opened, **held)


class Queries:
    """One round: what is asked is settled first, then the answers are kept batch by batch.

    The same call after a kill goes on: what was chosen stays, and what was answered is not asked
    again, but for the batch or image that was under way.

    Args:
        folder (str): of this round; answers go to ``parts/``, images that are made to ``images/``.
        wanted (dict): what decides the choice; JSON.

    Raises:
        ValueError: the folder has the answers of another round.
    """

    def __init__(self, owner: str, folder: str, wanted: Mapping[str, Any]) -> None:
        self.owner, self.folder = owner, folder
        self.wanted = json.loads(json.dumps(wanted))
        self.plan = osp.join(folder, 'chosen.json')
        Path(folder, 'parts').mkdir(parents=True, exist_ok=True)

    def chosen(self) -> list[Any] | None:
        """What is to be asked as settled before, None if it is not.

        Raises:
            ValueError: the folder has the answers of another round.
        """
        if not osp.isfile(self.plan):
            return None
        held = json.loads(Path(self.plan).read_text())
        if held['wanted'] != self.wanted:
            raise ValueError(
                f'{self.owner}: {self.folder} holds answers to other queries (see chosen.json), '
                'which the black box was asked already. Choose another folder, or delete it.'
            )
        return held['chosen']

    def settle(self, chosen: list[Any]) -> None:
        """Write down what is to be asked, before it is."""
        write_json(self.plan, dict(wanted=self.wanted, chosen=chosen))

    def answer(self, number: int, ask: Callable[[], Any]) -> Any:
        """The answer to one of them, JSON: asked now and kept, or kept before."""
        file = Path(self.folder, 'parts', f'{number:05d}.json')
        if not file.is_file():
            write_compact(str(file), ask())
        return json.loads(file.read_text())

    def ask(self, box: BlackBoxOfImages, images: Any, chosen: list[list]) -> Asked:
        """Ask about images what has no answer yet.

        Args:
            chosen (list[list]): (first, second, share) of each.
            images (Callable): gives the pixels (3, H, W) of an entry of ``chosen`` and the path of
                its image in the pool, None for a mixture.
        """
        Path(self.folder, 'images').mkdir(exist_ok=True)
        keys = [f'images/{_name(*entry)}.png' for entry in chosen]
        scores = []
        for number, start in enumerate(range(0, len(chosen), BATCH)):
            file = osp.join(self.folder, 'parts', f'{number:05d}.npz')
            if not osp.isfile(file):
                part = slice(start, start + BATCH)
                pixels, paths = zip(*map(images, chosen[part]), strict=True)
                written = [osp.join(self.folder, key) for key in keys[part]]
                for image, path in zip(pixels, written, strict=True):
                    mmcv.imwrite(image.permute(1, 2, 0).numpy(), path)
                names = [path or own for path, own in zip(paths, written, strict=True)]
                _save(file, dict(scores=box(torch.stack(pixels), names).numpy()))
            with np.load(file) as held:
                scores.append(held['scores'])
        first, second, share = zip(*chosen, strict=True)
        return Asked(first, second, share, keys, np.concatenate(scores))


def _name(first: int, second: int, share: float) -> str:
    return f'{first}' if second == ALONE else f'{first}_{second}_{share:.2f}'


class BlackBoxOfImages:
    """A teacher of any kind that gives class scores, asked about images alone.

    Args:
        teacher (Teacher): not met yet.
        student (nn.Module): a classifier, whose classes it must have.
        names (tuple[str, ...]): of these classes, where they are known.

    Raises:
        ValueError: a teacher without class scores; classes of another number or order.
    """

    def __init__(
        self, owner: str, teacher: Teacher, student: nn.Module, names: tuple[str, ...]
    ) -> None:
        teacher.meet(student)
        counts = [count_classes(owner, model) for model in (teacher.model, student)]
        own = classifier.classes(teacher.model)
        if counts[0] != counts[1] or (own and names and own != names):
            raise ValueError(
                f'{owner}: the black box has {counts[0]} classes ({_few(own)}) and the student '
                f'{counts[1]} ({_few(names)}). Both must know the same, in the same order.'
            )
        self.teacher, self.tap = teacher, Tap.parse(scores_tap(teacher.model))
        on_gpu(teacher).set_taps([self.tap])

    def __call__(self, images: Tensor, names: list[str]) -> Tensor:
        """Probabilities (N, K) of images (N, 3, H, W), uint8 BGR.

        Args:
            names (list[str]): their files.
        """
        side = seen_by(self.teacher, images, names)
        return side[self.tap][0].double().softmax(1).float().cpu()


def _few(names: tuple[str, ...] | None) -> str:
    names = names or ('names unknown',)
    return ', '.join(names[:6]) + (', …' if len(names) > 6 else '')


def check_budget(owner: str, budget: int | None, seeds: int) -> None:
    """A budget must suffice for the first round, else ValueError."""
    if budget is not None and budget < seeds:
        raise ValueError(
            f'{owner}: budget={budget} does not suffice for the first {seeds} images. Raise it, '
            'or lower seeds.'
        )


def check_one_black_box(owner: str, black_box: Any, given: Mapping[str, Any]) -> None:
    """Either the stage has a teacher or the maker a black box, else ValueError."""
    if bool(black_box) == ('teacher' in given):
        found = 'both' if black_box else 'neither'
        raise ValueError(
            f'{owner} asks one black box: teacher= of the stage (--teacher of mmkd make) or '
            f'black_box=, found {found}.'
        )


def of_round(owner: str, asked: int, seeds: int, add: int, budget: int | None) -> int:
    """Images of the next round: ``seeds``, later ``add``, and no more than the budget leaves.

    Raises:
        ValueError: the budget is spent.
    """
    count = add if asked else seeds
    if budget is None:
        return count
    if asked >= budget:
        raise ValueError(
            f'{owner}: {asked} images were asked, and the budget is {budget}. Raise it, or leave '
            'this round out.'
        )
    return min(count, budget - asked)


def say_asked(owner: str, new: int, asked: int, budget: int | None) -> None:
    """How many images were asked, in this round and in all."""
    limit = '' if budget is None else f' of a budget of {budget}'
    current_screen().say(f'{owner}: {new} images asked, {asked} in all{limit}')
