"""DomainWeights: teachers of several domains, by how near their images are to the student's."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from logging import WARNING
from math import inf
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import Tensor

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.engine.console.screen import current_screen
from mmkd.makers.pictures import features_of, files_of
from mmkd.options import check_choice, check_number, check_size
from mmkd.registry import MAKERS
from mmkd.teacher import Teacher

RULES = ('exp', 'inverse')
#: share of the median distance that is added before it is inverted
FLOOR = 0.1
#: weight from which on one teacher is as good as alone
ALONE = 0.95

Moments = tuple[np.ndarray, np.ndarray]


def moments(features: Tensor) -> Moments:
    """Mean and deviation of each channel of (N, C) features, in float64."""
    values = features.double().numpy()
    return values.mean(0), values.std(0)


def frechet(target: Moments, source: Moments) -> float:
    """``|mu_t - mu_i|^2 + |sigma_t - sigma_i|^2``, for normal distributions without covariance."""
    return sum(float(np.square(t - s).sum()) for t, s in zip(target, source, strict=True))


def similarities(distances: Mapping[str, float], rule: str = 'exp') -> dict[str, float]:
    """Weights of sum 1: ``exp(-d / median d)``, or ``1 / (d + 0.1 median d)`` for ``'inverse'``."""
    values = np.array(list(distances.values()), dtype=np.float64)
    middle = float(np.median(values)) or 1.0
    weights = np.exp(-values / middle) if rule == 'exp' else 1 / (values + FLOOR * middle)
    return {n: float(w) for n, w in zip(distances, weights / weights.sum(), strict=True)}


def jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    """``(KL(p || m) + KL(q || m)) / 2``, ``m = (p + q) / 2``, of two histograms, in nats."""
    a, b = (np.asarray(x, dtype=np.float64) / np.sum(x) for x in (p, q))
    middle = (a + b) / 2
    terms = (x[x > 0] * np.log(x[x > 0] / middle[x > 0]) for x in (a, b))
    return float(sum(term.sum() for term in terms) / 2)


@MAKERS.register_module()
class DomainWeights(Maker):
    """Weights for ``mmkd.Ensemble(weights=…)`` by the similarity of domains (Ruder et al., 2017).

    Images of each teacher's domain and of the target's go through one fixed backbone; its last map
    is averaged over places and standardised by the target's mean and deviation of each channel. The
    distance of two domains is Frechet's between normal distributions without covariance. The paper
    names no measure for pictures, so this one is ours. For class histograms it is the
    Jensen-Shannon divergence, and the similarity one minus it.

    ``weights.json`` has a weight for each teacher, ``domains.json`` the distances.

    Args:
        domains (dict[str, str | list[float]]): by name of the teacher, a folder of images, a config
            whose training images count, or a histogram of classes.
        target (str | list[float]): the same for the student's images.
        config, checkpoint (str | None): of the backbone; a stage's ``teacher=`` replaces them.
        tap (str): whose last map counts.
        images (int): of each domain, at least 2, drawn evenly from the sorted files.
        size (list[int]): height and width to which images are scaled.
        rule (str): ``'exp'``: ``exp(-d / median d)``; ``'inverse'``: ``1 / (d + 0.1 median d)``.

    Raises:
        ValueError: no domain, fewer than two images of one, features that are not finite,
            histograms of unequal length; no backbone.
    """

    def __init__(
        self,
        domains: Mapping[str, Any],
        target: Any,
        config: str | None = None,
        checkpoint: str | None = None,
        tap: str = 'backbone',
        images: int = 500,
        size: Sequence[int] = (224, 224),
        rule: str = 'exp',
    ) -> None:
        if not isinstance(domains, Mapping) or not domains or 'target' in domains:
            raise ValueError(
                'DomainWeights needs domains=dict(name=FOLDER, …), one for each teacher, none of '
                "which is called 'target', found "
                f'{domains!r}.'
            )
        if not isinstance(target, (str, list, tuple)):
            raise ValueError(
                'DomainWeights: target must be a folder of images, a config or a histogram, found '
                f'{target!r}.'
            )
        self.domains, self.target = dict(domains), target
        self.source, self.tap = (config, checkpoint), tap
        self.images = check_number('DomainWeights', 'images', images, 2, whole=True)
        self.size = check_size('DomainWeights', size)
        self.rule = check_choice('DomainWeights', 'rule', rule, RULES)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        if isinstance(self.target, str):
            distances = self._of_images(given)
            weights = similarities(distances, self.rule)
        else:
            distances = self._of_histograms()
            near = {name: 1 - d for name, d in distances.items()}
            weights = {name: s / sum(near.values()) for name, s in near.items()}
        for name, weight in weights.items():
            text = f'domain {name}: distance {distances[name]:.4g}, weight {weight:.4f}'
            current_screen().say(text)
        best = max(weights, key=lambda name: weights[name])
        if weights[best] > ALONE and len(weights) > 1:
            text = (
                f'DomainWeights: {best!r} has {weights[best]:.1%} of the weight, so the ensemble '
                "is as good as that teacher alone. With rule='inverse' weights differ less"
            )
            print_log(text, 'current', WARNING)
        write_json(osp.join(work_dir, 'domains.json'), dict(distances=distances, weights=weights))
        path = osp.join(work_dir, 'weights.json')
        write_json(path, weights)
        return Product('', path, work_dir)

    def _of_images(self, given: Mapping[str, Product]) -> dict[str, float]:
        config, checkpoint = self.source
        if 'teacher' in given:
            config, checkpoint = given['teacher'].config, given['teacher'].checkpoint
        if config is None or checkpoint is None:
            raise ValueError(
                'DomainWeights compares images by one fixed backbone: give config= and '
                'checkpoint=, or the teacher= of the stage.'
            )
        backbone = Teacher(config, checkpoint)
        features = {n: self._features(backbone, n, source) for n, source in self._all()}
        mean, deviation = moments(features['target'])
        deviation = np.where(deviation > 0, deviation, 1.0)

        def scaled(x: Tensor) -> Moments:
            own, spread = moments(x)
            return (own - mean) / deviation, spread / deviation

        target = scaled(features.pop('target'))
        return {name: frechet(target, scaled(x)) for name, x in features.items()}

    def _all(self) -> list[tuple[str, Any]]:
        return [('target', self.target), *self.domains.items()]

    def _features(self, backbone: Teacher, name: str, source: Any) -> Tensor:
        files = files_of(source, self.images) if isinstance(source, str) else []
        if len(files) < 2:
            raise ValueError(
                f'DomainWeights: domain {name!r} has {len(files)} images at {source!r}, at least 2 '
                'are needed. Name a folder of images, or a config that trains on them.'
            )
        found = features_of(backbone, self.tap, files, self.size)
        if not bool(found.isfinite().all()):
            raise ValueError(
                f'DomainWeights: features of domain {name!r} are not finite. Is the checkpoint of '
                'the backbone sound?'
            )
        return found

    def _of_histograms(self) -> dict[str, float]:
        for name, counts in self._all():
            listed = isinstance(counts, (list, tuple)) and len(counts) == len(self.target)
            good = listed and all(isinstance(c, (int, float)) and 0 <= c < inf for c in counts)
            if not good or not any(counts):
                raise ValueError(
                    f'DomainWeights: domain {name!r} must be a histogram of {len(self.target)} '
                    f'counts, at least 0 and not all 0, like the target, found {counts!r}.'
                )
        return {n: jensen_shannon(self.target, counts) for n, counts in self.domains.items()}
