"""BSS: KD on images that an adversarial attack moved across the teacher's decision boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.families.comparable import Misfit
from mmkd.functional.gumbel import gumbel_noise
from mmkd.functional.logit_distances import weighted_cross_entropy
from mmkd.generators import step_generator
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.pixels import Pixels
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace
from mmkd.untouched import buffers_aside

#: added to the distance from the boundary, so that a step ends behind it
_BEYOND = 1e-4


def base_scores(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """``sum_{k != y} (p_t,k - p_s,k)^2`` of images that both classify correctly, -1 of all others.

    Args:
        student, teacher (Tensor): logits (N, K).
        labels (Tensor): classes (N,).
    """
    right = (student.argmax(1) == labels) & (teacher.argmax(1) == labels)
    others = 1 - F.one_hot(labels, student.shape[1])
    gap = ((teacher.softmax(1) - student.softmax(1)).square() * others).sum(1)
    return torch.where(right, gap, -1.0)


def draw_targets(teacher: Tensor, base: Tensor, noise: Tensor) -> Tensor:
    """A class other than ``base`` for each image, with probability proportional to p_t; (n,).

    Args:
        teacher (Tensor): logits (n, K).
        base (Tensor): classes (n,).
        noise (Tensor): Gumbel noise (n, K).
    """
    own = F.one_hot(base, teacher.shape[1]).bool()
    return (teacher + noise).masked_fill(own, -torch.inf).argmax(1)


def attack(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    classes: tuple[Tensor, Tensor],
    chosen: Tensor,
    eta: float,
    steps: int,
    bounds: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Move images up the gradient g of ``z_target - z_base``, until the base class is left.

    A step is ``eta (z_base - z_target + 1e-4) g / ||g||_2``, clipped to ``bounds``.

    Args:
        score (callable): pixels (n, ...) -> logits (n, K), independent between images.
        x (Tensor): pixels.
        classes (tuple[Tensor, Tensor]): base and target class of each image, (n,).
        chosen (Tensor): (n,) bool; other images stay as they are.
        bounds (tuple[Tensor, Tensor]): least and largest value of a pixel.

    Returns:
        tuple: pixels, and their logits; neither has a gradient.
    """
    base, target = classes
    for _ in range(steps):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            z = score(x)
            gap = (z.gather(1, base[:, None]) - z.gather(1, target[:, None]))[:, 0]
            (slope,) = torch.autograd.grad(-gap.sum(), x)
        length = slope.flatten(1).norm(dim=1).clamp(min=1e-12)
        pace = eta * (gap.detach() + _BEYOND) / length
        moving = chosen & (z.argmax(1) == base)
        pace, moving = (v.view(-1, *[1] * (x.dim() - 1)) for v in (pace, moving))
        x = torch.where(moving, (x.detach() + pace * slope).clamp(*bounds), x.detach())
    with torch.no_grad():
        return x, score(x)


@MODELS.register_module()
class BSS(Objective):
    """Knowledge distillation with adversarial samples supporting decision boundary.

    Heo et al., AAAI 2019, and their code bhheo/BSS_distillation:
    ``alpha H(p_t(x), p_s(x)) + beta H(p_t(x'), p_s(x'))``, H the cross entropy of probabilities at
    temperature tau, without tau^2. x' are boundary supporting samples: of the images that both
    networks classify correctly, at most ``samples`` are attacked, those on whose other classes they
    differ most. Towards another class, drawn by the teacher's probabilities, they are moved up the
    teacher's gradient in the pixels until its decision changes. The student runs once more, on x',
    which moves none of its BatchNorm statistics; unchosen images among them count nothing. The
    teacher runs ``steps + 1`` times more.

    The code lowers both factors linearly::

        alpha=dict(value=4, decay='linear', end_value=1),
        beta=dict(value=2, decay='linear', end_value=0, stop=0.75)

    The log shows ``base``, the number of attacked images, and ``crossed``, the share of them
    whose class changed.

    Args:
        alpha, beta (float): factors of the terms on images and on attacked images; without ``beta``
            nothing is attacked.
        tau (float): temperature.
        samples (int): attacked images of a batch at most; the code's 64 of 256.
        eta (float): length of a step, relative to the difference of the two logits.
        steps (int): of the attack.
        drop_uncrossed (bool): leave out images that did not cross, as in the paper; the code keeps
            them.
        seed (int): of the drawn classes, which depend on it, on the iteration and on the rank only.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or of images of unequal
            channels.
    """

    low: Tensor
    high: Tensor
    asks_teacher = True
    runs_student = True
    zero_at_equality = False
    term_factors = {'loss_kd': 'alpha', 'loss_bss': 'beta'}
    late_losses = ('loss_bss',)  # an untrained student classifies hardly an image correctly
    scheduled = ('alpha', 'beta', 'tau')
    families = ('classifier',)

    def __init__(
        self,
        *taps: Taps,
        alpha: float = 4.0,
        beta: float = 2.0,
        tau: float = 3.0,
        samples: int = 64,
        eta: float = 0.3,
        steps: int = 10,
        drop_uncrossed: bool = True,
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.alpha = check_number('BSS', 'alpha', alpha, 0)
        self.beta = check_number('BSS', 'beta', beta, 0)
        self.tau = check_temperature('BSS', tau)
        self.samples = check_number('BSS', 'samples', samples, 1, whole=True)
        self.eta = check_number('BSS', 'eta', eta, above=0)
        self.steps = check_number('BSS', 'steps', steps, 1, whole=True)
        self.drop_uncrossed = drop_uncrossed
        self.seed = check_number('BSS', 'seed', seed, 0, whole=True)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        logits.bind_images(self, student, teacher)
        self.formats = Pixels.of(student), Pixels.of(teacher)
        own, wanted = (one.channels for one in self.formats)
        if own != wanted:
            raise Misfit(
                "BSS shows the teacher's attacked images to the student, but the teacher's have "
                f'{wanted} channels and the student takes {own}. Take networks of equal channels.'
            )
        self.same_pixels = self.formats[0].same_values(self.formats[1])
        mean, std = (v.view(1, -1, 1, 1) for v in (self.formats[1].mean, self.formats[1].std))
        for name, value in (('low', 0.0), ('high', 255.0)):
            self.register_buffer(name, (value - mean) / std, persistent=False)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, teacher, labels = logits.rows(trace, self, 'images')
        hard = weighted_cross_entropy(student, teacher, tau=self.tau).mean()
        losses = {'loss_kd': self.alpha * hard}
        if not self.beta:
            return losses | {'loss_bss': student.sum() * 0.0}
        score, index = base_scores(student, teacher, labels).topk(min(self.samples, len(labels)))
        base = score >= 0
        pixels, wanted = self._attacked(trace, teacher[index], labels[index], index, base)
        crossed = base & (wanted.argmax(1) != labels[index])
        kept = (crossed if self.drop_uncrossed else base).float()
        distance = weighted_cross_entropy(self._ask(trace, pixels), wanted, tau=self.tau)
        found = (distance * kept).sum() / kept.sum().clamp(min=1)
        count = base.sum().float()
        logged = {'base': count, 'crossed': crossed.sum() / count.clamp(min=1)}
        return losses | {'loss_bss': self.beta * found, **logged}

    def _attacked(
        self, trace: Trace, teacher: Tensor, labels: Tensor, index: Tensor, base: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attacked images (n, C, H, W) as the teacher takes them, and its logits (n, K)."""
        network = classifier.in_precision(trace.teacher.model, torch.float32)
        device = teacher.device
        generator = step_generator(self.seed, trace.progress.iteration, device=device)
        targets = draw_targets(teacher, labels, gumbel_noise(teacher, generator))

        def score(pixels: Tensor) -> Tensor:
            return network(pixels, mode='tensor')

        pixels = trace.teacher.inputs.detach().float()[index]
        bounds = self.low.to(pixels.dtype), self.high.to(pixels.dtype)
        return attack(score, pixels, (labels, targets), base, self.eta, self.steps, bounds)

    def _ask(self, trace: Trace, pixels: Tensor) -> Tensor:
        """The student's logits of attacked images, (n, K)."""
        student = trace.student.model
        pixels = pixels[..., : trace.inputs.shape[2], : trace.inputs.shape[3]]
        if not self.same_pixels:
            own, teachers = self.formats
            pixels = own.renormalise(pixels, teachers)
        with buffers_aside(student):
            return student(pixels, mode='tensor').float()

    def describe(self) -> list[str]:
        """What a step costs beside KD."""
        return [
            f'attacks up to {self.samples} images of a batch in {self.steps} steps: the teacher '
            f'runs {self.steps + 1} times more, {self.steps} of them backwards'
        ]
