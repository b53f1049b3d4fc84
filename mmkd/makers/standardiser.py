"""Standardiser: linear maps that bring a teacher's features to equal variances."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmkd.building import build_teachers
from mmkd.chain import Maker, Product
from mmkd.checkpoint import atomic_file
from mmkd.config import distils, load_config, model_of
from mmkd.makers.networks import on_gpu
from mmkd.makers.pictures import training_batches
from mmkd.names import did_you_mean, find_name
from mmkd.options import check_choice, check_number
from mmkd.pixels import Pixels
from mmkd.registry import MAKERS
from mmkd.tap import Tap
from mmkd.teacher import Teacher, build_model

RULES = ('phi_s', 'standardise')
BATCH = 16


def paley(size: int) -> Tensor | None:
    """A Hadamard matrix of size q + 1 for a prime q = 3 mod 4, by quadratic residues; else None."""
    q = size - 1
    if q < 3 or q % 4 != 3 or any(q % d == 0 for d in range(2, int(q**0.5) + 1)):
        return None
    squares = {i * i % q for i in range(1, q)}
    sign = torch.tensor([0] + [1 if i in squares else -1 for i in range(1, q)]).double()
    steps = torch.arange(q)
    matrix = torch.ones(size, size, dtype=torch.float64)
    matrix[1:, 1:] = sign[(steps[None] - steps[:, None]) % q] + torch.eye(q)
    matrix[1:, 0] = -1
    return matrix


def rotation(size: int) -> tuple[Tensor, bool]:
    """An orthogonal matrix (D, D) in float64, and whether all of its entries are +-1 / sqrt(D).

    That is a Hadamard matrix, which Sylvester's doubling makes of one of Paley's or of (1). For the
    few widths for which neither does, the Q of a random matrix of +-1, always the same.
    """
    core, times = size, 0
    while True:
        start = torch.ones(1, 1, dtype=torch.float64) if core == 1 else paley(core)
        if start is not None:
            break
        if core % 2:
            draw = torch.Generator().manual_seed(size)
            signs = torch.randint(0, 2, (size, size), generator=draw) * 2 - 1
            return torch.linalg.qr(signs.double())[0], False
        core, times = core // 2, times + 1
    for _ in range(times):
        start = torch.cat((torch.cat((start, start), 1), torch.cat((start, -start), 1)))
    return start / size**0.5, True


def linear_map(mean: Tensor, covariance: Tensor, rule: str) -> Tensor:
    """Matrix A (D, D) so that ``A (x - mean)`` has variances of 1.

    ``'standardise'``: divided by the deviation of each channel. ``'phi_s'``: ``H U^T / phi`` with
    the eigenvectors U of the covariance, a Hadamard matrix H and ``phi^2``, the mean eigenvalue.

    Raises:
        ValueError: features that do not vary, or are not finite.
    """
    variances = covariance.diagonal()
    if not bool(covariance.isfinite().all()) or not float(variances.sum()) > 0:
        raise ValueError(
            "Standardiser: the teacher's features are not finite, or the same everywhere. Are its "
            'weights sound?'
        )
    if rule == 'standardise':
        return torch.diag(1 / variances.clamp(min=1e-12).sqrt())
    values, vectors = torch.linalg.eigh(covariance)
    matrix, _ = rotation(len(mean))
    return matrix @ vectors.T / values.mean().sqrt()


class Moments:
    """Mean and covariance of features that come in batches, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0
        self.square: Any = 0

    def add(self, features: Tensor) -> None:
        """Places of maps (N, D, h, w)."""
        rows = features.double().movedim(1, -1).flatten(0, -2)
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.square = self.square + rows.T @ rows

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D), divided by the count."""
        mean = self.total / self.count
        return mean, self.square / self.count - torch.outer(mean, mean)


@MAKERS.register_module()
class Standardiser(Maker):
    """Linear maps for :class:`~mmkd.methods.token_distillation.TokenDistillation` (PHI-S).

    The teacher of a distillation config sees training images as it does in training; moments of its
    features over all places become the file ``standardiser.pt``, for each map mean and matrix.

    Args:
        config (str): with the teacher and the training images.
        at (str): tap on the teacher.
        rule (str): ``'phi_s'`` (Ranzinger et al., arXiv 2410.01680) rotates channels so that one
            common scale gives all of them variance 1; ``'standardise'`` scales each.
        images (int): how many, drawn evenly.
        teacher_name (str | None): of several teachers.

    Raises:
        ValueError: a config without a teacher; unsuitable options; features that do not vary.
    """

    def __init__(
        self,
        config: str,
        at: str = 'maps',
        rule: str = 'phi_s',
        images: int = 2000,
        teacher_name: str | None = None,
    ) -> None:
        self.config, self.at, self.name = config, at, teacher_name
        self.rule = check_choice('Standardiser', 'rule', rule, RULES)
        self.images = check_number('Standardiser', 'images', images, 1, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config = load_config(self.config)
        teacher, student = on_gpu(self._teacher(config)), build_model(config)
        tap = Tap.parse(self.at)
        teacher.set_taps([tap])
        found: list[Moments] = []
        size = min(BATCH, self.images)
        own = Pixels.of(student)
        for inputs, samples in training_batches(config, student, self.images, size):
            device = next(teacher.model.parameters()).device
            maps = teacher(inputs.to(device), samples, own)[tap]
            found = found or [Moments() for _ in maps]
            for moments, features in zip(found, maps, strict=True):
                moments.add(features.cpu())
        means, matrices = [], []
        for moments in found:
            mean, covariance = moments.result()
            means.append(mean)
            matrices.append(linear_map(mean, covariance, self.rule))
        path = osp.join(work_dir, 'standardiser.pt')
        with atomic_file(path) as part:
            torch.save(dict(mean=means, matrix=matrices), part)
        return Product('', path, work_dir)

    def _teacher(self, config: Any) -> Teacher:
        model = model_of(config)
        if not distils(model) or not model.get('teacher'):
            raise ValueError(
                f'Standardiser: {self.config} has no teacher, whose features could be standardised.'
            )
        teachers = build_teachers(model['teacher'])
        name = self.name or (next(iter(teachers)) if len(teachers) == 1 else None)
        chosen = find_name(name, teachers)
        if chosen not in teachers:
            raise ValueError(
                f'Standardiser: teacher_name={self.name!r} is none of {", ".join(teachers)}.'
                f'{did_you_mean(self.name, teachers)}'
            )
        return teachers[chosen]
