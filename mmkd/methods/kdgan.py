"""KDGAN: adversarial training of student, teacher and a discriminator of pseudo labels (GAN)."""

from __future__ import annotations

from collections.abc import Mapping
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.adapters.critic import Certainty, patch_layers
from mmkd.functional.gumbel import concrete, gumbel_noise
from mmkd.functional.logit_distances import half_squared_error
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.pixels import Pixels
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace

_OPTIMIZER = dict(type='Adam', lr=1e-3)


class LabelCritic(nn.Module):
    """Images (N, C, H, W) -> (N, K): scores of each label, D(x, y) = sigmoid(score_y(x)).

    Two convolutions of stride 2 with spectral norm, the mean over places, a linear layer.

    Args:
        channels (int): of an image.
        width (int): of the convolutions.
        classes (int): K.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.layers = patch_layers(channels, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean((2, 3)))


def log_real(score: Tensor, labels: Tensor) -> Tensor:
    """``log D(x, y)`` of the true labels, (N, K) and (N,) -> (N,)."""
    return F.logsigmoid(score).gather(1, labels[:, None])[:, 0]


def log_fake(score: Tensor, shares: Tensor) -> Tensor:
    """``sum_y q_y log(1 - D(x, y))``, the exact expectation over labels y ~ q, without sampling.

    Args:
        score, shares (Tensor): scores, and q, (N, K).

    Returns:
        Tensor: (N,).
    """
    return (shares * F.logsigmoid(-score)).sum(1)


@MODELS.register_module()
class KDGAN(Objective):
    """KDGAN: knowledge distillation with generative adversarial networks.

    Wang et al., NeurIPS 2018. Student C and teacher T propose labels of an image, the discriminator
    D tells them from the true one. D maximises, C and T minimise
    ``E[log D(x, y)] + alpha E_{p_C}[log(1 - D)] + (1 - alpha) E_{p_T}[log(1 - D)]``, C beside it
    ``beta`` times, T ``gamma`` times half the squared distance of the logits, summed over classes.
    Let T be a peer: it learns from the game and from labels, as C does. All three learn in one
    step, from the same images, D by an optimiser of its own
    ([objectives](../objectives.md#an-optimiser-of-its-own)); a frozen teacher proposes labels and
    does not learn. The phases of the code, 20 epochs D, 10 T and 10 C, are turns of steps::

        trains=dict(
            objectives=dict(every=40, count=20),
            peers=dict(every=40, first=20, count=10),
            student=dict(every=40, first=30, count=10),
        )

    The code samples labels, of which the paper takes a Gumbel-softmax relaxation; expectations are
    exact here, of which that is a noisy estimate. One label an image; the paper tags images with
    several. D reads the pixels by a small network. T must be better than C at first, or C drags
    it down: let it start from a trained checkpoint (``init_cfg``), and lower ``gamma`` where it
    learns as fast as C: the code's 1 belongs to Adam with a rate of 1e-3. The log shows
    ``accuracy``, the share of true labels with D > 1/2 and of proposed ones with D < 1/2.

    Args:
        alpha (float): share of the student's proposals among those that D sees, 0 to 1.
        beta, gamma (float): factors of the student's and of the teacher's squared distance.
        relaxation (float | None): temperature of a Gumbel-softmax draw in place of the
            expectation; None for the expectation.
        width (int): channels of D.
        optimizer (dict | None): D's; None is Adam, learning rate 1e-3. It follows the run's
            ``param_scheduler``.
        student, teacher, weight, teacher_name, learner: see :class:`~mmkd.objective.Objective`;
            taps show logits.

    Raises:
        ValueError: options out of range; no classifiers of equal classes, or a single class.
    """

    zero_at_equality = False
    needs_ground_truth = True
    teaches_back = True
    own_losses = ('loss_critic', 'loss_teacher_fool', 'loss_teacher_mimic')
    term_factors = {'loss_fool': 'alpha', 'loss_mimic': 'beta'}
    families = ('classifier',)

    def __init__(
        self,
        *taps: Taps,
        alpha: float = 0.5,
        beta: float = 1.0,
        gamma: float = 1.0,
        relaxation: float | None = None,
        width: int = 64,
        optimizer: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.alpha = check_number('KDGAN', 'alpha', alpha, 0, 1)
        self.beta = check_number('KDGAN', 'beta', beta, 0)
        self.gamma = check_number('KDGAN', 'gamma', gamma, 0)
        self.relaxation = check_temperature('KDGAN', relaxation, 'relaxation', optional=True)
        self.width = check_number('KDGAN', 'width', width, 1, whole=True)
        self.optimizer = dict(_OPTIMIZER if optimizer is None else optimizer)
        self.certainty = Certainty('KDGAN')
        self.looked = False

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        logits.bind_images(self, student, teacher)
        classes = logits.class_count(student, 'images')
        self.critic = LabelCritic(Pixels.of(student).channels, self.width, classes)

    def factor_of(self, key: str) -> float:
        teachers = {'loss_teacher_fool': 1 - self.alpha, 'loss_teacher_mimic': self.gamma}
        return teachers[key] if key in teachers else super().factor_of(key)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student, _, labels = logits.rows(trace, self, 'images')
        teacher = trace.teacher[self.teacher_taps[0]][0]
        self._check_start(trace, teacher)
        score = self.critic(trace.inputs.detach().to(self.critic.fc.weight.dtype))
        losses = {
            'loss_fool': self.alpha * self._fool(score, student),
            'loss_mimic': self.beta * half_squared_error(student, teacher.detach()),
        }
        if teacher.requires_grad:  # a peer, in a step in which it trains
            losses['loss_teacher_fool'] = (1 - self.alpha) * self._fool(score, teacher)
            mimic = half_squared_error(teacher, student.detach())
            losses['loss_teacher_mimic'] = self.gamma * mimic
        own, wanted = (z.detach().softmax(1) for z in (student, teacher))
        shares = self.alpha * own + (1 - self.alpha) * wanted
        losses |= self._judge(score, shares, labels)
        if self.training:
            self.certainty(losses['accuracy'], trace.progress)
        return losses

    def _judge(self, score: Tensor, shares: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The discriminator's loss, and how often it is right."""
        loss = -(log_real(score, labels) + log_fake(score, shares)).mean()
        real = (score.gather(1, labels[:, None]) > 0).float().mean()
        fake = (shares * (score < 0)).sum(1).mean()
        return {'loss_critic': loss, 'accuracy': ((real + fake) / 2).detach()}

    def _fool(self, score: Tensor, z: Tensor) -> Tensor:
        """Mean ``log(1 - D)`` of labels proposed by logits (N, K); D is a constant."""
        shares = z.softmax(1)
        if self.relaxation is not None:
            shares = concrete(z, gumbel_noise(z), self.relaxation)
        return log_fake(score.detach(), shares).mean()

    def _check_start(self, trace: Trace, teacher: Tensor) -> None:
        """Warn in the first step of a run of a teacher that learns and was never trained."""
        if self.looked:
            return
        self.looked = True
        norms = [m for m in trace.teacher.model.modules() if isinstance(m, _BatchNorm)]
        counts = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        begins = trace.progress.iteration == 0 and teacher.requires_grad
        if begins and counts and max(int(count) for count in counts) <= 1:
            text = (
                'KDGAN: the teacher has not been trained. At first it must be better than the '
                "student; give the peer init_cfg=dict(type='Pretrained', checkpoint=…)."
            )
            print_log(text, 'current', WARNING)

    def describe(self) -> list[str]:
        """Size of the discriminator, and how labels are proposed."""
        size = sum(p.numel() for p in self.critic.parameters())
        how = (
            'expectations' if self.relaxation is None else f'draws of temperature {self.relaxation}'
        )
        return [f'discriminator of {size:,} parameters, {how} over labels']
