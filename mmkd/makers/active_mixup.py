"""ActiveMixup: a black box is asked about those mixtures of which the student is least certain."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.chain import Maker, Product
from mmkd.chain.product import digest
from mmkd.config import type_name
from mmkd.engine.settings import plain
from mmkd.makers.mixtures import (
    BATCH,
    SHARES,
    least_confident,
    lowest,
    mixed,
    pair_at,
    place_of,
)
from mmkd.makers.networks import check_classifier, on_gpu
from mmkd.makers.pool import Pool
from mmkd.makers.queries import (
    ALONE,
    ANSWERS,
    Asked,
    BlackBoxOfImages,
    Queries,
    check_budget,
    check_one_black_box,
    of_round,
    say_asked,
)
from mmkd.options import check_choice, check_number
from mmkd.registry import MAKERS
from mmkd.teacher import Teacher, build_model, load_strictly
from mmkd.teachers import build_teacher

OWNER = 'ActiveMixup'


@MAKERS.register_module()
class ActiveMixup(Maker):
    """Answers of a black box to the mixtures of images of which the student is least certain.

    Wang et al., CVPR 2020. Without ``asked`` the black box is asked about ``seeds`` images, drawn
    at random. Later rounds mix two of them, ``s a + (1 - s) b``: of each pair the share s at which
    the student's highest probability is lowest, and of all pairs the ``add`` lowest. A pair is
    asked once. ``answers.npz`` has all answers so far, for ``mmkd.AnsweredImages``; the images are
    PNGs in ``images/``. After an interruption the same call asks only what has no answer yet.

    The black box is the stage's ``teacher=``, a frozen network of which nothing but its
    probabilities is used, or ``black_box=``. The student is the stage's ``student=``.

    Args:
        config (str): of a classifier: the images of its training set, whose labels are not read,
            under the pipeline of its validation, are the pool.
        seeds (int): images of the first round.
        add (int): queries of a later round.
        budget (int | None): images that may be asked in all rounds; the last round asks no more
            than are left.
        asked (str | None): ``answers.npz`` of the round before; None: the first round.
        black_box (dict | None): a kind of teacher that gives class scores, such as
            ``dict(type='mmkd.Onnx', file=…)``, ``mmkd.Function`` or ``mmkd.Cached``.
        choose (str): ``'uncertain'``, or ``'random'``, for comparison.
        mix (bool): ask about mixtures; False: about further images of the pool.
        pairs (int | None): as many pairs, drawn at random, are scored in a round; None: all.
        seed (int): of what is drawn.

    Raises:
        ValueError: options out of range, such as a budget below ``seeds``; no black box, or two; no
            student to be uncertain; networks that are no classifiers of the same classes; a pool of
            too few images or of unequal sizes; a budget that is spent.
        FileNotFoundError: there is no such config or file.
    """

    def __init__(
        self,
        config: str,
        seeds: int,
        add: int,
        budget: int | None = None,
        asked: str | None = None,
        black_box: Mapping[str, Any] | None = None,
        choose: str = 'uncertain',
        mix: bool = True,
        pairs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.config, self.asked, self.black_box, self.mix = config, asked, black_box, mix
        self.seeds = check_number(OWNER, 'seeds', seeds, 2, whole=True)
        self.add = check_number(OWNER, 'add', add, 1, whole=True)
        self.budget = check_number(OWNER, 'budget', budget, 1, whole=True, optional=True)
        self.choose = check_choice(OWNER, 'choose', choose, ('uncertain', 'random'))
        self.pairs = check_number(OWNER, 'pairs', pairs, self.add, whole=True, optional=True)
        self.seed = check_number(OWNER, 'seed', seed, 0, 2**31, whole=True)
        check_budget(OWNER, self.budget, self.seeds)
        if mix and type_name(black_box or {}) == 'Cached':
            raise ValueError(
                'ActiveMixup: black_box is a file of answers (mmkd.Cached), which has none for '
                'mixtures. Set mix=False.'
            )

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        student, pool = self._student(given), Pool(OWNER, self.config)
        box = self._black_box(given, student, pool.names)
        asked = Asked.none(student.head.fc.out_features)
        if self.asked:
            asked = Asked.read(OWNER, self.asked, pool.mark, asked.scores.shape[1])
            asked = asked.moved(osp.dirname(self.asked), work_dir)
        queries = Queries(OWNER, work_dir, self._wanted(given, pool))
        chosen = queries.chosen()
        if chosen is None:
            chosen = self._chosen(asked, pool, student, 'student' in given)
            queries.settle(chosen)
        found = asked + queries.ask(box, lambda entry: _pixels(pool, *entry), chosen)
        say_asked(OWNER, len(chosen), len(found), self.budget)
        file = osp.join(work_dir, ANSWERS)
        found.write(file, pool.mark, pool.names)
        return Product('', file, work_dir, dict(queries=len(found)))

    def _student(self, given: Mapping[str, Product]) -> Any:
        source = given.get('student')
        model = build_model(source.config if source else self.config)
        if source:
            load_strictly(model, source.checkpoint, who=OWNER)
        check_classifier(OWNER, model)
        return on_gpu(model).eval()

    def _black_box(
        self, given: Mapping[str, Product], student: nn.Module, names: tuple[str, ...]
    ) -> BlackBoxOfImages:
        check_one_black_box(OWNER, self.black_box, given)
        if self.black_box:
            teacher = build_teacher(self.black_box)
        else:
            teacher = Teacher(given['teacher'].config, given['teacher'].checkpoint)
        return BlackBoxOfImages(OWNER, teacher, student, names)

    def _wanted(self, given: Mapping[str, Product], pool: Pool) -> dict[str, Any]:
        """What decides which images are chosen, and who answers."""
        options = {k: v for k, v in vars(self).items() if k not in ('config', 'asked')}
        options = plain(options, lambda key, value: False)
        files = {role: product.checkpoint for role, product in given.items()}
        files |= dict(asked=self.asked) if self.asked else {}
        return dict(options, pool=pool.mark, **{k: digest(path) for k, path in files.items()})

    # -------------------------------------------------------------------------------------- choice

    def _chosen(self, asked: Asked, pool: Pool, student: nn.Module, trained: bool) -> list[list]:
        """(first, second, share) of each image to ask about."""
        draw = torch.Generator().manual_seed(self.seed + 7919 * len(asked))
        if not len(asked):
            if len(pool) < self.seeds:
                raise ValueError(
                    f'ActiveMixup: seeds={self.seeds}, but the pool has {len(pool)} images.'
                )
            drawn = torch.randperm(len(pool), generator=draw)[: self.seeds]
            return [[i, ALONE, 1.0] for i in drawn.tolist()]
        if self.choose == 'uncertain' and not trained:
            raise ValueError(
                "ActiveMixup: choose='uncertain' needs a student: student= of the stage, or "
                '--student CONFIG CHECKPOINT of mmkd make.'
            )
        count = of_round(OWNER, len(asked), self.seeds, self.add, self.budget)
        find = self._mixtures if self.mix else self._images
        return find(asked, pool, student, count, draw)

    def _mixtures(
        self, asked: Asked, pool: Pool, student: nn.Module, count: int, draw: torch.Generator
    ) -> list[list]:
        alone = torch.as_tensor(asked.alone)
        number = {int(place): n for n, place in enumerate(alone)}
        mixtures = asked.second != ALONE
        done = [[number[int(i)] for i in x[mixtures]] for x in (asked.first, asked.second)]
        total = len(alone) * (len(alone) - 1) // 2
        free = torch.ones(total, dtype=torch.bool)
        free[place_of(*torch.tensor(done, dtype=torch.long), len(alone))] = False
        places = free.nonzero()[:, 0]
        _check_left(len(places), count, 'pairs of the first images')
        places = _drawn(places, self.pairs if self.choose == 'uncertain' else count, draw)
        first, second = pair_at(places, len(alone))
        if self.choose == 'random':
            share = torch.tensor(SHARES)[torch.randint(len(SHARES), (count,), generator=draw)]
        else:
            images = torch.stack([pool.image(i) for i in alone.tolist()])
            values, share = least_confident(images, first, second, Confidence(student))
            best = lowest(values, count)
            first, second, share = first[best], second[best], share[best]
        columns = alone[first].tolist(), alone[second].tolist(), share.double().tolist()
        return [[i, j, round(s, 2)] for i, j, s in zip(*columns, strict=True)]

    def _images(
        self, asked: Asked, pool: Pool, student: nn.Module, count: int, draw: torch.Generator
    ) -> list[list]:
        free = torch.ones(len(pool), dtype=torch.bool)
        free[torch.as_tensor(asked.alone)] = False
        places = free.nonzero()[:, 0]
        _check_left(len(places), count, 'images')
        if self.choose == 'random':
            places = _drawn(places, count, draw)
        else:
            judge = Confidence(student)
            values = [
                judge(torch.stack([pool.image(i) for i in part.tolist()]))
                for part in places.split(BATCH)
            ]
            places = places[lowest(torch.cat(values).cpu(), count)]
        return [[i, ALONE, 1.0] for i in places.tolist()]


def _check_left(left: int, count: int, what: str) -> None:
    if left < count:
        raise ValueError(
            f'ActiveMixup: {count} queries are to be added, but only {left} {what} are left that '
            'were not asked. Lower add, or take more seeds.'
        )


def _drawn(places: Tensor, count: int | None, draw: torch.Generator) -> Tensor:
    """So many of them at random, in their order; None: all."""
    order = torch.randperm(len(places), generator=draw)[:count]
    return places[order.sort().values] if count is not None else places


class Confidence:
    """The highest probability that a classifier gives to any class, of images uint8 BGR."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N,) float32."""
        inputs = self.model.data_preprocessor(dict(inputs=images), False)['inputs']  # type: ignore[operator]
        return self.model(inputs, mode='tensor').float().softmax(1).amax(1)


def _pixels(pool: Pool, first: int, second: int, share: float) -> tuple[Tensor, str | None]:
    """(3, H, W) of a choice, and the file of an image that is no mixture."""
    if second == ALONE:
        return pool.load(first)
    pair = pool.image(first)[None], pool.image(second)[None]
    return mixed(*pair, torch.tensor([share], dtype=torch.float32))[0], None
