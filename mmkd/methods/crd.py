"""CRD: contrastive loss (noise contrastive estimation) on embeddings, with a memory bank."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier, family_of
from mmkd.families.comparable import Misfit, named
from mmkd.functional.device import upload
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.relations import unit
from mmkd.generators import step_generator
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows.vectors import linear_layers, row_pairs
from mmkd.tap import Trace

_EPS = 1e-7


def contrastive_error(positive: Tensor, negatives: Tensor, valid: Tensor, size: int) -> Tensor:
    """``-log h(x+) - K mean_k log(1 - h(x_k))``, mean over images; ``h = P / (P + K / N + eps)``.

    Args:
        positive (Tensor): log P of each image's own entry, (B,).
        negatives (Tensor): log P of K other entries, (B, K).
        valid (Tensor): (B, K) bool, which of them count; the mean is over those.
        size (int): N, entries of the memory.
    """
    noise = negatives.shape[1] / size
    base = log(noise + _EPS)
    own = F.softplus(base - positive)
    others = (base - log(noise) + F.softplus(negatives - base)) * valid
    return (own + negatives.shape[1] * others.sum(1) / valid.sum(1).clamp(min=1)).mean()


@MODELS.register_module()
class CRD(Objective):
    """Contrastive representation distillation.

    Tian et al., ICLR 2020, with noise-contrastive estimation as in HobbitLong/RepDistiller. Linear
    layers, both trained, embed both networks' features, at length 1. Two memories keep each
    training image's embedding by either network. A student's embedding is compared with the
    teacher's memory, of its own image and of K images of other classes; a teacher's with the
    student's, which trains the teacher's layer alone. Scores are ``exp(g . m / tau) / Z``, where Z
    is N times the mean score of the first batch. Afterwards the memories are updated with the
    batch's embeddings by momentum, equally on all ranks.

    Images of the same class are recognised once they have been seen; before, an entry is a random
    vector, of no class. A step needs B * N products, and memory for B * N numbers. Memories, Z and
    classes are in checkpoints that a run can resume from, not in the best one. Together with KD
    the weight is 1. Without taps the embeddings of two classifiers; with taps a vector, or a map
    averaged over places, of classifiers.

    Args:
        size (int): N, images of the training set; 50,000 is CIFAR's.
        negatives (int): K.
        dim (int): outputs of the linear layers.
        tau (float): temperature; 0.1 in other implementations.
        momentum (float): momentum of the memory's update.
        positive (str): positive entry of the memory: that of the ``'image'`` itself, or of any
            image of its ``'class'`` seen so far (``'exact'`` and ``'relax'`` of the authors' code).
        seed (int): of the choice of negatives, which depends on it, on the iteration and on the
            image only.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; not one layer per side; no taps and no classifiers; a
            training set of another size, or whose images share numbers (``ConcatDataset``); samples
            without ``sample_idx`` or label, or with a number beyond the memory.
    """

    default_weight = 0.8
    zero_at_equality = False
    own_losses = ('loss_teacher',)
    rank_invariant = True
    transient = ('newest',)
    resume_only = ('memory', 'classes', 'log_z')
    scheduled = ('tau',)
    over_scales = True
    families = ('classifier',)

    def __init__(
        self,
        *taps: Taps,
        size: int = 50_000,
        negatives: int = 16_384,
        dim: int = 128,
        tau: float = 0.07,
        momentum: float = 0.5,
        positive: str = 'image',
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.size = check_number('CRD', 'size', size, 2, whole=True)
        self.count = check_number('CRD', 'negatives', negatives, 1, whole=True)
        self.dim = check_number('CRD', 'dim', dim, 1, whole=True)
        self.tau = check_temperature('CRD', tau)
        self.momentum = check_number('CRD', 'momentum', momentum, 0, 1)
        self.positive = check_choice('CRD', 'positive', positive, ('image', 'class'))
        self.seed = check_number('CRD', 'seed', seed, 0, whole=True)
        #: index, labels and views of the newest batch of all ranks, which the memory has not taken
        #: in yet. No buffers: an average of weights (EMAHook) pairs those by their order.
        self.newest: tuple[Tensor, Tensor, Tensor] | None = None
        #: sides whose way back through the memory, as it was, is still to come
        self.awaited: set[int] = set()
        self.register_state_dict_pre_hook(_settle_first)
        bound = (3 / self.dim) ** 0.5
        #: embeddings of each image, by the student and by the teacher
        self.register_buffer('memory', torch.empty(2, self.size, self.dim).uniform_(-bound, bound))
        self.register_buffer('classes', torch.full((self.size,), -1))
        #: of the scores with the teacher's and with the student's memory; not yet known
        self.register_buffer('log_z', torch.full((2,), float('-inf')))
        self.normalised = False  # known to be finite
        self.register_load_state_dict_post_hook(_look_again)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if family_of(student) != 'classifier':
            raise Misfit(
                'CRD tells images of one class from those of others, but the student is '
                f'{named(student)}, whose images have no class.'
            )
        classifier.choose_taps(self, classifier.embedding_tap, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.embed, self.embed_target = linear_layers(self, student, teacher, self.dim)

    def check_dataset(self, dataset: Any) -> None:
        found = len(_images(dataset))
        if found != self.size:
            raise ValueError(
                f'CRD remembers {self.size} images, but the training set has {found}: set '
                f'size={found}.'
            )

    def describe(self) -> list[str]:
        megabytes = 2 * self.size * self.dim * 4 / 2**20
        return [f'remembers {self.size} images by both networks: {megabytes:.0f} MiB']

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        ((student, teacher),) = row_pairs(trace, self, gather=False)
        index = classifier.sample_indices(trace.samples)
        if index.min() < 0 or index.max() >= self.size:
            raise ValueError(
                f'CRD remembers images 0 to {self.size - 1}, but this batch has number '
                f'{int(index.max())}: size must be that of the training set.'
            )
        labels = classifier.labels(trace.samples, student.device)
        chosen = upload(self.draw(index, trace.progress.iteration), labels)
        anchor = self._positives(index, labels, trace.progress.iteration)
        index = upload(index, labels)
        views = unit(self.embed(student)), unit(self.embed_target(teacher))
        self._settle()
        student_memory, teacher_memory = self.memory
        scores = [
            (view @ memory.T / self.tau).gather(1, torch.cat((anchor[:, None], chosen), 1))
            for view, memory in zip(views, (teacher_memory, student_memory), strict=True)
        ]
        log_z = self._normaliser(scores)
        valid = (self.classes[chosen] != labels[:, None]) & (chosen != index[:, None])
        if self.training:
            # Backwards needs the memory as it was: it changes before the next step.
            self.awaited = _until_backward(views)
            seen = torch.stack([all_gather_rows(view.detach()) for view in views])
            self.newest = all_gather_rows(index), all_gather_rows(labels), seen
        keys = 'loss_student', 'loss_teacher'
        return {
            key: contrastive_error(s[:, 0] - z, s[:, 1:] - z, valid, self.size)
            for key, s, z in zip(keys, scores, log_z, strict=True)
        }

    def draw(self, index: Tensor, iteration: int) -> Tensor:
        """K entries of the memory for each image, (B, K), the same whatever rank has the image."""
        rows = []
        for image in index.tolist():
            generator = step_generator(self.seed, iteration, image)
            rows.append(torch.randint(self.size, (self.count,), generator=generator))
        return torch.stack(rows)

    @torch.no_grad()
    def _normaliser(self, scores: list[Tensor]) -> Tensor:
        """log Z of both sides, from the first batch of all ranks."""
        self.normalised = self.normalised or bool(self.log_z.isfinite().all())
        if self.normalised:
            return self.log_z
        every = all_gather_rows(torch.stack([s.logsumexp(1) for s in scores], 1))
        entries = len(every) * scores[0].shape[1]
        found = every.logsumexp(0) - log(entries) + log(self.size)
        if self.training:
            self.log_z.copy_(found)
        return found

    @torch.no_grad()
    def _positives(self, index: Tensor, labels: Tensor, iteration: int) -> Tensor:
        """Positive entry of the memory for each image, (B,)."""
        if self.positive == 'image':
            return upload(index, labels)
        same = self.classes == labels[:, None]
        same.scatter_(1, upload(index, labels)[:, None], True)
        draws = [step_generator(self.seed, iteration + 1, image) for image in index.tolist()]
        share = torch.stack([torch.rand((), generator=g) for g in draws])
        share = upload(share, self.memory)
        wanted = (share * same.sum(1)).long()
        return (same.cumsum(1) > wanted[:, None]).int().argmax(1)

    @torch.no_grad()
    def _settle(self) -> None:
        """Update the memories with the batch of all ranks; an image seen twice, by its mean."""
        if self.newest is None:
            return
        index, labels, views = (x.to(self.memory.device) for x in self.newest)
        self.newest = None
        if self.awaited:  # two passes before one backward
            self.memory = self.memory.clone()
        same = (index[:, None] == index).to(self.memory)
        same = same / same.sum(1, keepdim=True)
        for memory, view in zip(self.memory, views, strict=True):
            seen = same @ view.to(memory)
            memory[index] = unit(self.momentum * memory[index] + (1 - self.momentum) * seen)
        self.classes[index] = labels


def _until_backward(tensors: Sequence[Tensor]) -> set[int]:
    """Positions of tensors that have no gradient yet and will get one; they leave the set then."""
    awaited = {i for i, tensor in enumerate(tensors) if tensor.requires_grad}
    for i in awaited:
        tensors[i].register_hook(lambda _, i=i: awaited.discard(i))
    return awaited


def _look_again(objective: CRD, _: Any) -> None:
    """Loaded values of log Z may be those of an objective that has seen no batch."""
    objective.normalised = False


def _settle_first(objective: CRD, *_: Any) -> None:
    """A checkpoint holds the memory with the newest batch in it."""
    objective._settle()


def _images(dataset: Any) -> Any:
    """The dataset that numbers the images, beneath wrappers that repeat or resample it."""
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        parts = getattr(dataset, 'datasets', None) or [dataset.dataset]
        if len(parts) > 1:
            raise ValueError(
                f'CRD remembers each image by its number, but images of the {len(parts)} datasets '
                f'in a {type(dataset).__name__} share numbers. Use one dataset.'
            )
        dataset = parts[0]
    return dataset
