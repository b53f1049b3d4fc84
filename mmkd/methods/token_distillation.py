"""TokenDistillation: a backbone learns the features of a foundation model, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.checkpoint import read_file
from mmkd.families import DETECTORS, classifier
from mmkd.families.segmentor import encoder_tap
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.relations import unit
from mmkd.functional.standardise import batch_standardise
from mmkd.levels import Level
from mmkd.names import no_file
from mmkd.objective import PairObjective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace, parse_taps
from mmkd.view import View

FORMS = ('mse', 'cosine', 'queue', 'global_local')
#: forms that compare similarities by a KL divergence
RELATIVE = FORMS[2:]
BATCH = 'batch'


def token_distance(student: Tensor, teacher: Tensor, smooth: float = 0.1) -> Tensor:
    """``(1 - smooth) (1 - cos) + smooth * SmoothL1`` of tokens (..., D): (...).

    SmoothL1, of elements at threshold 1, is the mean over D.
    """
    apart = 1 - (unit(student) * unit(teacher)).sum(-1)
    if not smooth:
        return apart
    error = F.smooth_l1_loss(student, teacher, reduction='none').mean(-1)
    return (1 - smooth) * apart + smooth * error


def kl_of_similarities(
    student: Tensor, teacher: Tensor, tau: float, keep: Tensor | None = None
) -> Tensor:
    """``KL(softmax(teacher / tau) || softmax(student / tau))``, mean over rows of (..., R, M).

    Args:
        keep (Tensor | None): (M,) bool, columns that count.
    """
    logits = [x / tau for x in (student, teacher)]
    if keep is not None:  # not -inf, whose differences are NaN
        logits = [x.masked_fill(~keep, torch.finfo(x.dtype).min / 4) for x in logits]
    return soft_kl(*logits, 1.0).mean()


def local_kl(student: Tensor, teacher: Tensor, tau: float = 0.07) -> Tensor:
    """What each token (N, M, D) is similar to, among all tokens of its image."""
    alike = (x @ x.mT for x in (unit(student), unit(teacher)))
    return kl_of_similarities(*alike, tau)


class VectorQueue(nn.Module):
    """The last ``size`` vectors of length 1 that a teacher showed, first in, first out.

    Args:
        size, channels (int): K and D.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer('entries', torch.zeros(size, channels))
        self.register_buffer('pushed', torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Append (N, D), the oldest go."""
        size = len(self.entries)
        places = self.pushed + torch.arange(len(vectors), device=vectors.device)
        self.entries[places[-size:] % size] = vectors[-size:].to(self.entries)
        self.pushed += len(vectors)

    @property
    def filled(self) -> Tensor:
        """(K,) bool."""
        return torch.arange(len(self.entries), device=self.entries.device) < self.pushed


@MODELS.register_module()
class TokenDistillation(PairObjective):
    """AM-RADIO: agglomerative vision foundation model, reduce all domains into one.

    Ranzinger et al., CVPR 2024, and PHI-S, arXiv 2410.01680: features of a frozen image encoder
    train a backbone on images without labels. lightly-train and Ultralytics compare them without
    normalisation.

    A 1x1 convolution and bilinear resizing bring the student's map to the teacher's width and
    grid. ``form='mse'`` is the mean squared error; ``'cosine'`` is ``0.9 (1 - cos) + 0.1
    SmoothL1`` of each place, as in AM-RADIO; Ultralytics has ``smooth=0``. Both are means over
    places and images, and the sum over pairs of maps.

    lightly-train compares similarities at ``tau``. ``form='queue'``: of the mean of an image's
    places with those of past images of the teacher, ``KL(softmax(t Q / tau) || softmax(s Q /
    tau))``, the batch being among them (its first version). ``'global_local'`` (its third, with
    ``data_preprocessor=dict(mixup=1.0)``): that, and of each place with all places of its image.

    Channels of a foundation model differ in scale by orders of magnitude, and an error that is not
    normalised learns the largest. ``normalise`` maps the teacher's features first. A file of
    ``mmkd make Standardiser`` has a fixed linear map: to mean 0 and variance 1 of each channel, or
    that of PHI-S, which rotates them so that all get variance 1 by one common scale.

    Without taps: the last map of a classifier's backbone, and the maps of a ``mmkd.VisionModel`` or
    the last of another classifier. Detectors and segmentors name them, ``student='backbone[-1]',
    teacher='maps'``. A pyramid is ``student='backbone[1:]'``, with as many ``layers`` of a teacher.

    Args:
        form (str): ``'mse'``, ``'cosine'``, ``'queue'`` or ``'global_local'``.
        smooth (float): share of SmoothL1 in ``'cosine'``.
        normalise (str | None): ``'batch'``, mean 0 and variance 1 over the batch; the path of a
            file; None.
        tau (float | None): temperature of similarities, 0.07 by default.
        queue (int | None): images that are remembered, 4096 by default, fewer than the data set
            has; a quarter to a half of it is usual.
        student, teacher, weight, teacher_name, adapt, resize, level_map, in_channels,
            out_channels: see :class:`~mmkd.objective.PairObjective`.

    Raises:
        ValueError: options out of range or without effect; a file of other widths; several maps or
            fewer images than are to be remembered.
        FileNotFoundError: no such file.
    """

    families = ('classifier',)
    named_taps = (*DETECTORS, 'segmentor')

    def __init__(
        self,
        *taps: Taps,
        form: str = 'cosine',
        smooth: float | None = None,
        normalise: str | None = None,
        tau: float | None = None,
        queue: int | None = None,
        adapt: str | None = 'conv1x1',
        resize: str | None = 'teacher',
        **pair: Any,
    ) -> None:
        super().__init__(*taps, adapt=adapt, resize=resize, **pair)
        self.form = check_choice('TokenDistillation', 'form', form, FORMS)
        check_number('TokenDistillation', 'smooth', smooth, 0, 1, optional=True)
        self.size = check_number('TokenDistillation', 'queue', queue, 1, whole=True, optional=True)
        self.tau = check_temperature('TokenDistillation', tau, optional=True) or 0.07
        fits = dict(smooth=('cosine',), tau=RELATIVE, queue=RELATIVE)
        for name, value in dict(smooth=smooth, tau=tau, queue=queue).items():
            if value is not None and form not in fits[name]:
                raise ValueError(
                    f'TokenDistillation: {name}={value} has no effect with form={form!r}; leave it '
                    'out.'
                )
        self.size = self.size or 4096
        self.smooth = 0.1 if smooth is None else smooth
        self.normalise = normalise
        self.zero_at_equality = normalise is None
        fixed = _read(normalise) if normalise not in (None, BATCH) else []
        self.file_channels = [len(mean) for mean, _ in fixed]  # of the maps that the file is for
        for j, (mean, matrix) in enumerate(fixed):
            self.register_buffer(f'mean_{j}', mean, persistent=False)
            self.register_buffer(f'matrix_{j}', matrix, persistent=False)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        super().bind(student, teacher)
        if not self.teacher_taps and isinstance(getattr(teacher, 'maps', None), nn.Module):
            self.teacher_taps = parse_taps('maps')
        classifier.choose_taps(self, encoder_tap, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        super().setup(student, teacher)
        if self.form in RELATIVE:
            if len(self.pairs) != 1 or not teacher:
                raise ValueError(
                    f'TokenDistillation: form={self.form!r} compares one map of each network, '
                    f'found {len(self.pairs)}. Name one tap of each.'
                )
            self.queue = VectorQueue(self.size, teacher[self.pairs[0][1]].channels)
        if not self.file_channels:
            return
        shown = [level.channels for level in teacher or []]
        if shown and self.file_channels != shown:
            raise ValueError(
                f'TokenDistillation: {self.normalise} is for maps of {self.file_channels} '
                f'channels, but the teacher shows {shown}. Make it for these taps: mmkd make '
                'Standardiser.'
            )

    def maps(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        pairs = super().maps(trace)
        return [(s, self._normal(t, j)) for (s, t), (_, j) in zip(pairs, self.pairs, strict=True)]

    def _normal(self, teacher: Tensor, level: int) -> Tensor:
        """The teacher's map (N, D, h, w), normalised."""
        if self.normalise is None:
            return teacher
        if self.normalise == BATCH:
            return batch_standardise(teacher)
        mean, matrix = getattr(self, f'mean_{level}'), getattr(self, f'matrix_{level}')
        return F.conv2d(teacher - mean.view(1, -1, 1, 1), matrix[:, :, None, None])

    def check_dataset(self, dataset: Any) -> None:
        """Before training: the queue must hold other images than the batch's own."""
        if self.form in RELATIVE and self.size >= len(dataset):
            raise ValueError(
                f'TokenDistillation: queue={self.size} remembers as many images as the training '
                f'set has, {len(dataset)}, or more. Take a quarter of that, {len(dataset) // 4}.'
            )

    def forward(self, trace: Trace) -> Tensor | dict[str, Tensor]:
        if self.form not in RELATIVE:
            return super().forward(trace)
        ((student, teacher),) = self.tensor_pairs(trace)
        losses = dict(loss_global=self._global(student, teacher))
        if self.form == 'global_local':
            tokens = (x.flatten(2).mT for x in (student, teacher))
            losses['loss_local'] = local_kl(*tokens, self.tau)
        return losses

    def _global(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of maps (N, D, h, w), whose means are compared with those in the queue."""
        student, teacher = (unit(x.mean((2, 3))) for x in (student, teacher))
        if self.training:
            self.queue.push(all_gather_rows(teacher))
        bank = self.queue.entries.to(student, copy=True)  # which the next batch changes
        similarities = (x @ bank.T for x in (student, teacher))
        return kl_of_similarities(*similarities, self.tau, self.queue.filled)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.form == 'mse':
            return F.mse_loss(student, teacher)
        return self._apart(student, teacher).mean()

    def _apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Distance of each place of two maps (N, D, h, w): (N, h, w)."""
        return token_distance(student.movedim(1, -1), teacher.movedim(1, -1), self.smooth)

    def describe(self) -> list[str]:
        how = 'as they are' if self.normalise is None else f'normalised by {self.normalise}'
        return [f"{self.form} of features, the teacher's {how}", *super().describe()]

    def views(self, trace: Trace) -> list[View]:
        """The distance of each place."""
        pairs = self.tensor_pairs(trace)
        if self.form == 'mse':
            return [View('squared error', (s - t).square().mean(1)) for s, t in pairs]
        return [View('distance of tokens', self._apart(s, t)) for s, t in pairs]


def _read(file: str) -> list[tuple[Tensor, Tensor]]:
    """Mean (D,) and matrix (D, D) of each map."""
    if not Path(file).expanduser().is_file():
        raise FileNotFoundError(
            f"TokenDistillation: {no_file(file, '.pt', '.pth')} normalise is 'batch', None or "
            'the file that mmkd make Standardiser writes.'
        )
    held = read_file(str(Path(file).expanduser()), 'cpu')
    good = isinstance(held, dict) and {'mean', 'matrix'} <= set(held)
    if not good or not all(isinstance(x, torch.Tensor) for x in [*held['mean'], *held['matrix']]):
        raise ValueError(f'TokenDistillation: {file} was not written by mmkd make Standardiser.')
    return [(m.float(), a.float()) for m, a in zip(held['mean'], held['matrix'], strict=True)]
