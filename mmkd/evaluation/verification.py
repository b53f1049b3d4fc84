"""Whether two images show the same: pairs are told apart by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd.names import no_file
from mmkd.options import check_number
from mmkd.registry import METRICS
from mmkd.teachers.cached import names_of, path_ends


def best_threshold(similarity: Tensor, same: Tensor) -> float:
    """The threshold at which ``similarity > threshold`` is right for most pairs; the highest such.

    It lies halfway between two similarities.

    Args:
        similarity (Tensor): (P,).
        same (Tensor): (P,) bool.
    """
    values = similarity.double().unique()
    between = (values[1:] + values[:-1]) / 2
    candidates = torch.cat((values[:1] - 1, between, values[-1:] + 1)).flip(0)
    ordered, order = similarity.double().sort()
    missed = torch.cat((torch.zeros(1, dtype=torch.long), same[order].long().cumsum(0)))
    below = torch.searchsorted(ordered, candidates)
    right = (below - missed[below]) + (same.sum() - missed[below])
    return float(candidates[right.argmax()])


def fold_accuracies(similarity: Tensor, same: Tensor, folds: int) -> Tensor:
    """Share of right answers in each fold, at the threshold that is best on the others: (folds,).

    Pair i is in fold ``i * folds // P``, as in LFW's protocol, whose folds follow each other.
    """
    fold = torch.arange(len(same)) * folds // len(same)
    found = []
    for k in range(folds):
        own = fold == k
        threshold = best_threshold(similarity[~own], same[~own])
        found.append(((similarity[own] > threshold) == same[own]).double().mean())
    return torch.stack(found)


def area_under_curve(similarity: Tensor, same: Tensor) -> float:
    """How often a pair of one identity is more similar than one of two; ties count half."""
    positive, negative = similarity[same].double(), similarity[~same].double().sort().values
    below = torch.searchsorted(negative, positive)
    not_above = torch.searchsorted(negative, positive, right=True)
    return float((below + not_above).double().mean() / 2 / len(negative))


@METRICS.register_module()
class Verification(BaseMetric):
    """Verification of pairs, as of faces: ``accuracy``, with ``accuracy_error``, and ``auc``.

    The protocol of Labeled Faces in the Wild: two images show the same if the cosine of their
    embeddings (``pred_embedding`` of ``mmkd.Classifier``, the pooled features) exceeds a threshold,
    which for each of ten folds is the best one on the other nine. All in percent; the error is the
    standard error of the mean over the folds.

    Args:
        pairs (str | int): a file with a line ``IMAGE IMAGE 1`` (the same) or ``… 0`` for each pair,
            images by the end of their paths; or how many pairs are drawn from the labels, half of
            them of one class, in random order.
        folds (int): at least 2.
        seed (int): of pairs that are drawn.
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: options out of range; a file of another form, or with images that the data do
            not have; pairs that are all the same or all different; predictions without embeddings.
        FileNotFoundError: no such file.
    """

    default_prefix = ''  # not None, of which mmengine complains
    of_head = False  # what is behind the embedding need not be trained

    def __init__(
        self, pairs: str | int = 6000, folds: int = 10, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.folds = check_number('Verification', 'folds', folds, 2, whole=True)
        self.seed = check_number('Verification', 'seed', seed, 0, whole=True)
        self.listed, self.count = [], 0
        if isinstance(pairs, str):
            self.listed = _read(pairs)
        else:
            self.count = check_number('Verification', 'pairs', pairs, 2 * self.folds, whole=True)

    def check_dataset(self, dataset: Any) -> None:
        """Refuse data of which the pairs cannot be made; called before training, too."""
        if not hasattr(dataset, 'get_data_info') or not len(dataset):
            return
        key = 'img_path' if self.listed else 'gt_label'
        known = names_of(dataset, key)
        if known:
            self._pairs(known, known)
        elif key not in dataset[0]['data_samples']:
            kind = type(dataset).__name__
            if self.listed:
                raise ValueError(
                    f'Verification: the images of {kind} are not in files that a list of pairs '
                    'could name. Let pairs be a number, which draws them from the labels.'
                )
            raise ValueError(
                f'Verification: the images of {kind} have no labels to draw pairs from. Name a '
                "file of pairs (pairs='pairs.txt')."
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note the embedding, the class and the file of each sample."""
        for sample in data_samples:
            if 'pred_embedding' not in sample:
                raise ValueError(
                    'Verification compares the embeddings of images, which mmkd.Classifier gives '
                    '(pred_embedding), and these samples have none.'
                )
            label = int(sample['gt_label']) if 'gt_label' in sample else -1
            embedding = sample['pred_embedding'].float().cpu()
            self.results.append((str(sample.get('img_path', '')), label, embedding))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Over all pairs."""
        paths, labels, embeddings = zip(*results, strict=True)
        first, second, same = self._pairs(paths, labels)
        unit = torch.nn.functional.normalize(torch.stack(embeddings).double(), dim=1)
        similarity = (unit[first] * unit[second]).sum(1)
        folds = 100 * fold_accuracies(similarity, same, self.folds)
        return dict(
            accuracy=float(folds.mean()),
            accuracy_error=float(folds.std() / self.folds**0.5),
            auc=100 * area_under_curve(similarity, same),
        )

    def _pairs(self, paths: Sequence[Any], labels: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of two images, and whether they show the same, (P,) each."""
        first, second, same = self._from_file(paths) if self.listed else self._drawn(labels)
        kinds = int(same.sum())
        if not 0 < kinds < len(same) or len(same) < 2 * self.folds:
            raise ValueError(
                f'Verification: {kinds} of {len(same)} pairs are of one identity; pairs of both '
                f'kinds are needed, {2 * self.folds} at least for {self.folds} folds.'
            )
        return first, second, same

    def _from_file(self, paths: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        ends = {end: row for row, path in enumerate(paths) for end in path_ends(path)}
        names = [name for one in self.listed for name in one[:2]]
        missing = [name for name in names if name not in ends]
        if missing:
            raise ValueError(
                f'Verification: {len({*missing})} images of the pairs are not among the evaluated '
                f'ones, such as {missing[0]!r}. Evaluated: {", ".join(paths[:3])}, ….'
            )
        rows = torch.tensor([ends[name] for name in names]).view(-1, 2)
        return rows[:, 0], rows[:, 1], torch.tensor([one[2] for one in self.listed])

    def _drawn(self, labels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of random images, an equal number of either kind as far as there are."""
        found = torch.tensor(labels)
        generator = torch.Generator().manual_seed(self.seed)
        wanted, kept = self.count // 2, {True: [], False: []}
        for _ in range(100):  # of many classes few pairs are of one
            pair = torch.randint(len(found), (2, 20 * self.count), generator=generator)
            pair = pair[:, pair[0] != pair[1]]
            alike = found[pair[0]] == found[pair[1]]
            for kind, chosen in kept.items():
                chosen.append(pair[:, alike == kind])
            if min(sum(p.shape[1] for p in chosen) for chosen in kept.values()) >= wanted:
                break
        columns = [torch.cat(kept[kind], 1)[:, :wanted] for kind in (True, False)]
        same = torch.tensor([True] * columns[0].shape[1] + [False] * columns[1].shape[1])
        order = torch.randperm(len(same), generator=generator)
        first, second = torch.cat(columns, 1)[:, order]
        return first, second, same[order]


def _read(file: str) -> list[tuple[str, str, bool]]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'Verification: {no_file(file, ".txt", ".csv")}')
    found = []
    for line in path.read_text().splitlines():
        words = line.replace(',', ' ').split()
        if not words:
            continue
        if len(words) != 3 or words[2] not in ('0', '1'):
            raise ValueError(
                f'Verification: {file} must have lines IMAGE IMAGE 1 (the same) or 0, found '
                f'{line!r}.'
            )
        found.append((words[0], words[1], words[2] == '1'))
    return found
