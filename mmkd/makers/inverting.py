"""Images out of a network: noise that is optimised until its answer and its statistics fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.makers.merge_detections import overlap
from mmkd.pixels import Pixels
from mmkd.untouched import training, untouched_random_state

#: a pixel is MIDDLE + SPREAD v, whatever the network's own normalisation is
MIDDLE, SPREAD = 127.5, 64.0
#: an object may cover so much of another, by intersection over union
OVERLAP, TRIES = 0.3, 20


def total_variation(x: Tensor) -> Tensor:
    """Norms of the differences to the right, lower and both diagonal neighbours, (N, C, H, W) ->
    (N,)."""
    pairs = (
        (x[..., :, 1:], x[..., :, :-1]),
        (x[..., 1:, :], x[..., :-1, :]),
        (x[..., 1:, 1:], x[..., :-1, :-1]),
        (x[..., 1:, :-1], x[..., :-1, 1:]),
    )
    return sum((a - b).flatten(1).norm(dim=1) for a, b in pairs)  # type: ignore[return-value]


class Statistics:
    """Distance of a batch from what a network's BatchNorms remember of their training.

    ``sum_l ||mu_l - mean_l|| + ||var_l - variance_l||``, mu_l and var_l (biased) of what enters
    layer l. A layer that runs several times counts each time.

    Args:
        model (nn.Module): every BatchNorm with running statistics counts.
    """

    def __init__(self, model: nn.Module) -> None:
        self.norms = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]
        self.terms: list[Tensor] = []

    @contextlib.contextmanager
    def seen(self) -> Iterator[None]:
        """While the network runs once."""
        self.terms = []
        handles = [norm.register_forward_pre_hook(self._look) for norm in self.norms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        dims = [0, *range(2, x.dim())]
        mean, variance = x.mean(dims), x.var(dims, unbiased=False)
        apart = (mean - norm.running_mean).norm() + (variance - norm.running_var).norm()
        self.terms.append(apart)

    def distance(self, like: Tensor) -> Tensor:
        """The sum of all layers of the last run; 0 of a network without BatchNorms."""
        return sum(self.terms, like.new_zeros(()))


def layout(
    size: tuple[int, int], classes: int, most: int, sides: tuple[float, float], draw: Any
) -> tuple[list[list[float]], list[int]]:
    """Boxes xyxy in whole pixels of an image (H, W), and the class of each.

    Args:
        most (int): at least one object, and at most so many.
        sides (tuple[float, float]): least and largest root of a box's area, over the shorter side
            of the image; drawn evenly, as the logarithm of width over height from 1/2 to 2.
        draw (numpy.random.Generator): what is drawn from.
    """
    height, width = size
    boxes: list[list[float]] = []
    for _ in range(int(draw.integers(1, most + 1))):
        for _ in range(TRIES):
            side = draw.uniform(*sides) * min(size)
            stretch = 2.0 ** draw.uniform(-0.5, 0.5)
            w, h = min(side * stretch, width), min(side / stretch, height)
            w, h = max(round(w), 1), max(round(h), 1)
            x, y = draw.integers(0, width - w + 1), draw.integers(0, height - h + 1)
            box = [float(x), float(y), float(x + w), float(y + h)]
            if (overlap(np.array(box), np.array(boxes).reshape(-1, 4)) <= OVERLAP).all():
                boxes.append(box)
                break
    return boxes, draw.integers(0, classes, len(boxes)).tolist()


Loss = Callable[[Tensor], Tensor]


class Inverter:
    """Turns noise into images of a frozen network.

    ``task + l2 ||v|| + tv TV(v) + bn sum_l(||mu_l - mean_l|| + ||var_l - variance_l||)`` is
    minimised by Adam, whose rate falls to 0 as a cosine; norms are of one image and averaged over
    the batch. v is clipped to what a pixel can be.

    Args:
        model (nn.Module): without gradients in its parameters.
        factors (dict[str, float]): of ``'task'``, ``'l2'``, ``'tv'`` and ``'bn'``.
        steps (int): of Adam.
        lr (float): its first rate.
        jitter (int): in each step the image is rolled by at most so many pixels in both
            directions, and flipped in every second one on average; 0: neither.
    """

    def __init__(
        self, model: nn.Module, factors: Mapping[str, float], steps: int, lr: float, jitter: int
    ) -> None:
        self.model, self.factors = model, factors
        self.steps, self.lr, self.jitter = steps, lr, jitter
        self.pixels, self.statistics = Pixels.of(model), Statistics(model)

    def __call__(self, loss: Loss, count: int, size: tuple[int, int], seed: int) -> dict[str, Any]:
        """Make one batch; it depends on the seed, and moves no random stream of the process.

        Args:
            loss (callable): normalised and padded pixels -> the task's loss.
            size (tuple[int, int]): (H, W).

        Returns:
            dict: ``images`` (N, C, H, W) uint8 in BGR, or grey, and of the terms ``task`` and
                ``bn`` the first value and that of the rounded images.
        """
        device = next(self.model.parameters()).device
        with untouched_random_state():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            noise = torch.randn(count, self.pixels.channels, *size).to(device)
            v = self._clipped(noise).requires_grad_()
            optimizer = torch.optim.Adam([v], lr=self.lr)
            falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            first = self._terms(loss, v.detach())
            for _ in range(self.steps):
                terms = self._terms(loss, self._moved(v))
                total = sum(self.factors[name] * term for name, term in terms.items())
                (v.grad,) = torch.autograd.grad(total, v)
                optimizer.step()
                falling.step()
                with torch.no_grad():
                    v.copy_(self._clipped(v))
            images = rounded(v.detach())
            last = self._terms(loss, (images.float() - MIDDLE) / SPREAD)
        values = {name: [float(first[name]), float(last[name])] for name in ('task', 'bn')}
        return dict(images=images.cpu(), **values)

    def normalised(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) from 0 to 255, in BGR, as the network takes them."""
        pixels = self.pixels
        x = pixels.renormalise(images.float(), Pixels(None, pixels.channels))
        h, w = x.shape[2:]
        return F.pad(x, (0, -w % pixels.divisor, 0, -h % pixels.divisor), value=pixels.pad)

    def _terms(self, loss: Loss, v: Tensor) -> dict[str, Tensor]:
        with self.statistics.seen():
            task = loss(self.normalised(MIDDLE + SPREAD * v))
        return dict(
            task=task,
            l2=v.flatten(1).norm(dim=1).mean(),
            tv=total_variation(v).mean(),
            bn=self.statistics.distance(v),
        )

    def _moved(self, v: Tensor) -> Tensor:
        if not self.jitter:
            return v
        down, right = torch.randint(-self.jitter, self.jitter + 1, (2,)).tolist()
        rolled = v.roll((down, right), (2, 3))
        return rolled.flip(3) if torch.rand(()) < 0.5 else rolled

    @staticmethod
    def _clipped(v: Tensor) -> Tensor:
        return v.detach().clamp(-MIDDLE / SPREAD, MIDDLE / SPREAD)


def rounded(v: Tensor) -> Tensor:
    """Pixels as they are written: uint8, the nearest whole number from 0 to 255."""
    return (MIDDLE + SPREAD * v).round().clamp(0, 255).to(torch.uint8)


def class_loss(model: Any, labels: Tensor) -> Loss:
    """Cross entropy of a classifier and the classes (N,) that are asked for."""
    return lambda x: F.cross_entropy(model(x, mode='tensor').float(), labels.to(x.device))


def detection_loss(model: Any, size: tuple[int, int], layouts: list) -> Loss:
    """The ordinary loss of a detector and the :func:`layout` of each image.

    Heads may compute it otherwise in eval mode, so they are in train mode, and BatchNorms are not.
    """
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    def loss(x: Tensor) -> Tensor:
        padded, samples = tuple(x.shape[2:]), []
        for number, (boxes, labels) in enumerate(layouts):
            meta = dict(
                img_id=number,
                img_shape=size,
                ori_shape=size,
                pad_shape=padded,
                batch_input_shape=padded,
                scale_factor=(1.0, 1.0),
                flip=False,
            )
            found = InstanceData(
                bboxes=torch.tensor(boxes, device=x.device),
                labels=torch.tensor(labels, device=x.device),
            )
            sample = DetDataSample(metainfo=meta, gt_instances=found)
            sample.ignored_instances = found[:0]
            samples.append(sample)
        with training(model):
            return model.parse_losses(model.loss(x, samples))[0]

    return loss
