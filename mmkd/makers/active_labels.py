"""ActiveLabels: a black box is asked for the objects of those images that a detector needs most."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mmcv
import torch

from mmkd.chain import Maker, Product
from mmkd.chain.product import digest
from mmkd.engine.console.screen import current_screen
from mmkd.makers.box_labels import BoxLabels
from mmkd.makers.box_queries import (
    DetectingFunction,
    DetectingNetwork,
    check_classes,
    read_asked,
    write_asked,
)
from mmkd.makers.label_folder import list_images, root_of
from mmkd.makers.mixtures import lowest
from mmkd.makers.queries import Queries, check_budget, check_one_black_box, of_round, say_asked
from mmkd.makers.score_thresholds import check_match
from mmkd.makers.uncertainty import MEASURES
from mmkd.options import check_choice, check_list, check_number
from mmkd.registry import MAKERS

OWNER = 'ActiveLabels'
#: images between two lines on the screen
SAID = 100
#: options that decide which images are chosen, and what is kept of the answers
DECISIVE = ('seeds', 'add', 'budget', 'choose', 'seed', 'least')


@MAKERS.register_module()
class ActiveLabels(Maker):
    """Boxes of a black box for those images of which a detector is least certain, as annotations.

    Active learning by uncertainty, in rounds: of the images that were not asked yet, the student
    judges each, and the black box is asked about the most uncertain ones, each once and as it is.
    Without a student the first round draws them at random. ``annotations.json`` (COCO) has the
    boxes of all images asked so far, with ``check.png`` and ``dataset.py`` as of
    :class:`~mmkd.makers.PseudoLabels`, and ``asked.json`` the answers. After an interruption the
    same call asks only what has no answer yet, and another threshold asks nothing.

    The black box is the stage's ``teacher=``, a detector, or ``black_box=``; the student is the
    stage's ``student=``. Labels of the images are not read.

    Args:
        images (str): the pool: a folder, at any depth, a config whose training images are meant, or
            a ``.txt`` file of one path a line.
        seeds (int): images of the first round.
        add (int): images of a later round.
        budget (int | None): images that may be asked in all rounds; the last round asks no more
            than are left.
        asked (str | None): ``annotations.json`` or ``asked.json`` of the round before; None: the
            first round.
        black_box (str | Callable | None): ``'file.py:function'`` or ``'package.module:function'``,
            see :class:`~mmkd.makers.box_queries.DetectingFunction`.
        choose (str): ``'entropy'``, the mean binary entropy of the 20 highest scores of at least
            0.05; ``'least_confident'``, 1 - the highest score; ``'random'``, for comparison.
        threshold (float | dict[str, float] | str): least score of an annotation, of all classes or
            by class; ``'match'``: that at which an image has as many objects as a labelled one.
        labelled (str | None): COCO file or config of labelled images, of ``'match'``.
        least (float): boxes of a lower score are not kept at all.
        classes (list[str] | None): of the black box, if it is a function or its checkpoint does not
            name them.
        pictures (int): in ``check.png``.
        seed (int): of what is drawn.

    Raises:
        ValueError: options out of range, such as a budget below ``seeds``; no black box, or two;
            networks that find no objects or know other classes; no student to be uncertain; too few
            images; a budget that is spent; answers of another form; nothing above the threshold.
        FileNotFoundError: there is no such file, or no image.
    """

    def __init__(
        self,
        images: str,
        seeds: int,
        add: int,
        budget: int | None = None,
        asked: str | None = None,
        black_box: str | Callable | None = None,
        choose: str = 'entropy',
        threshold: Any = 0.5,
        labelled: str | None = None,
        least: float = 0.05,
        classes: Sequence[str] | None = None,
        pictures: int = 16,
        seed: int = 0,
    ) -> None:
        self.images, self.asked, self.black_box = images, asked, black_box
        self.seeds = check_number(OWNER, 'seeds', seeds, 1, whole=True)
        self.add = check_number(OWNER, 'add', add, 1, whole=True)
        self.budget = check_number(OWNER, 'budget', budget, 1, whole=True, optional=True)
        self.choose = check_choice(OWNER, 'choose', choose, (*MEASURES, 'random'))
        self.threshold, self.labelled = threshold, labelled
        self.least = check_number(OWNER, 'least', least, 0, 1)
        self.classes = None if classes is None else check_list(OWNER, 'classes', classes)
        self.pictures = check_number(OWNER, 'pictures', pictures, 1, whole=True)
        self.seed = check_number(OWNER, 'seed', seed, 0, 2**31, whole=True)
        check_match(OWNER, threshold, labelled)
        check_budget(OWNER, self.budget, self.seeds)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        files = list_images(OWNER, self.images)
        root = root_of(self.images, files)
        pool = {osp.relpath(file, root).replace(os.sep, '/'): file for file in files}
        student = (
            DetectingNetwork(OWNER, 'student', given['student']) if 'student' in given else None
        )
        box = self._black_box(given, student)
        labels = BoxLabels(OWNER, box.names, self.threshold, self.labelled, least=self.least)
        asked = read_asked(OWNER, self.asked, box.names, pool) if self.asked else {}
        wanted = self._wanted(given, pool, box.names)
        queries = Queries(OWNER, work_dir, wanted)
        chosen = queries.chosen()
        if chosen is None:
            chosen = self._chosen(asked, pool, student)
            queries.settle(chosen)
        for number, image in enumerate(chosen):
            asked[image] = queries.answer(number, partial(box.boxes, pool[image], self.least))
            _say_progress('asked', number + 1, len(chosen))
        write_asked(work_dir, box.names, asked)
        say_asked(OWNER, len(chosen), len(asked), self.budget)
        found = {file: asked[image] for image, file in pool.items() if image in asked}
        info = dict(wanted, queries=len(asked), budget=self.budget)
        product = labels.write(work_dir, root, found, info, pictures=self.pictures)
        return replace(product, scores=dict(queries=len(asked)))

    def _black_box(
        self, given: Mapping[str, Product], student: DetectingNetwork | None
    ) -> DetectingFunction | DetectingNetwork:
        check_one_black_box(OWNER, self.black_box, given)
        known = student.names if student else []
        box: DetectingFunction | DetectingNetwork
        if self.black_box:
            box = DetectingFunction(OWNER, self.black_box, self.classes or known)
        else:
            box = DetectingNetwork(OWNER, 'teacher', given['teacher'])
            box.names = self.classes or box.names
        if not box.names:
            raise ValueError(
                'ActiveLabels: neither the black box nor the student names the classes; give them '
                'by classes=.'
            )
        check_classes(OWNER, box.names, known)
        return box

    def _wanted(
        self, given: Mapping[str, Product], pool: Mapping[str, str], names: list[str]
    ) -> dict[str, Any]:
        """What decides which images are chosen, and what is answered."""
        options = {name: getattr(self, name) for name in DECISIVE}
        files = {role: digest(product.checkpoint) for role, product in given.items()}
        if self.asked:
            files['asked'] = digest(osp.join(osp.dirname(self.asked), 'asked.json'))
        if isinstance(self.black_box, str):
            files['black_box'] = self.black_box
        images = hashlib.sha256('\n'.join(pool).encode()).hexdigest()
        return dict(options, images=images, classes=names, **files)

    # -------------------------------------------------------------------------------------- choice

    def _chosen(
        self, asked: Mapping[str, Any], pool: Mapping[str, str], student: DetectingNetwork | None
    ) -> list[str]:
        """The images to ask about, the most uncertain first."""
        if asked and self.choose != 'random' and student is None:
            raise ValueError(
                f'ActiveLabels: choose={self.choose!r} needs a student: student= of the stage, or '
                '--student CONFIG CHECKPOINT of mmkd make.'
            )
        free = [image for image in pool if image not in asked]
        count = self._count(len(asked), len(free))
        if self.choose == 'random' or student is None:
            draw = torch.Generator().manual_seed(self.seed + 7919 * len(asked))
            places = torch.randperm(len(free), generator=draw)[:count]
        else:
            measure, values = MEASURES[self.choose], []
            for number, image in enumerate(free, 1):
                values.append(measure(student.scores(pool[image])))
                _say_progress('scored', number, len(free))
            places = lowest(-torch.tensor(values, dtype=torch.float64), count)
        chosen = [free[place] for place in places.tolist()]
        _check_readable([pool[image] for image in chosen])
        return chosen

    def _count(self, asked: int, free: int) -> int:
        """Images of this round."""
        count = of_round(OWNER, asked, self.seeds, self.add, self.budget)
        if free < count:
            raise ValueError(
                f'ActiveLabels: {count} images are to be asked, but only {free} of {self.images} '
                f'are left that were not. Lower {"add" if asked else "seeds"}, or name more images.'
            )
        return count


def _check_readable(files: Sequence[str]) -> None:
    """ValueError for a file that cannot be decoded, before anything is asked."""
    for file in files:
        try:
            read = mmcv.imread(file)
        except Exception:  # noqa: BLE001  whatever a decoder says
            read = None
        if read is None:
            raise ValueError(f'{file} is damaged or no image. Repair or remove it.')


def _say_progress(what: str, number: int, total: int) -> None:
    if number % SAID == 0 and total > SAID:
        current_screen().say(f'{number} of {total} images {what}')
