"""From images to a batch: normalisation and, in training, mixup and CutMix."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor
from torch.nn import functional as F

from mmkd.options import check_number
from mmkd.registry import MODELS
from mmkd.scales import BatchAugments


@MODELS.register_module()
class ClassificationDataPreprocessor(ImgDataPreprocessor):
    """mmengine's ImgDataPreprocessor, and in training mixtures of the images of a batch.

    Mixtures are made here, before student and teacher, so that both see the same pixels. Where
    both are asked for, each batch is given one of them by lot.

    *Label rule*: a mixture of share s of image a and 1 - s of image b has
    ``gt_score = s * onehot(a) + (1 - s) * onehot(b)``, the target of the cross entropy. What needs
    one class or one image (``gt_label``, ``sample_idx``) is that of the larger share.

    Args:
        num_classes (int | None): length of ``gt_score``; needed for mixtures.
        mixup (float): alpha of the Beta distribution of the shares (Zhang et al., ICLR 2018); 0
            is off. ImageNet 0.2, CIFAR 1.
        cutmix (float): the same for CutMix (Yun et al., ICCV 2019); usually 1.
        mix_prob (float): share of batches that are mixed at all.
        batch_augments (list[dict] | None): what else is done to a batch in training, such as
            ``dict(type='mmkd.Rescale', scale=0.5)``.
        **kwargs: of :class:`mmengine.model.ImgDataPreprocessor`: mean, std, bgr_to_rgb, ….

    Raises:
        ValueError: alpha below 0, probability outside [0, 1], mixtures without ``num_classes``;
            images of unequal size.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_prob: float = 1.0,
        batch_augments: list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        check_number(owner, 'num_classes', num_classes, 1, whole=True, optional=True)
        check_number(owner, 'mixup', mixup, 0)
        check_number(owner, 'cutmix', cutmix, 0)
        check_number(owner, 'mix_prob', mix_prob, 0, 1)
        if (mixup or cutmix) and not num_classes:
            raise ValueError(f'{owner}: mixtures need num_classes=, the length of their targets.')
        mixers = [(mix_images, mixup), (cut_images, cutmix)]
        self.mixers = [(mixer, alpha) for mixer, alpha in mixers if alpha]
        self.num_classes, self.mix_prob = num_classes, mix_prob
        self.batch_augments = BatchAugments(MODELS.build(one) for one in batch_augments or [])

    def forward(self, data: dict, training: bool = False) -> dict | list:
        """Stack, normalise and mix; ``inputs`` become (N, 3, H, W)."""
        images = data['inputs']
        if not isinstance(images, Tensor):
            sizes = {tuple(image.shape) for image in images}
            if len(sizes) > 1:
                raise ValueError(
                    f'{type(self).__name__}: the images of a batch differ in size, '
                    f'{sorted(sizes)}; let the pipeline crop or resize them to one, or set '
                    'batch_size=1.'
                )
            data = dict(data, inputs=torch.stack(list(images)))
        batch = super().forward(data, training)
        if not training:
            return batch
        batch = self._mixed(batch)
        if not len(self.batch_augments):
            return batch
        inputs, samples = self.batch_augments(batch['inputs'], batch['data_samples'])
        return dict(batch, inputs=inputs, data_samples=samples)

    def _mixed(self, batch: dict) -> dict:
        if not self.mixers or torch.rand(()) >= self.mix_prob:
            return batch
        mixer, alpha = self.mixers[int(torch.randint(len(self.mixers), ()))]
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        partner = torch.randperm(len(batch['inputs']))
        batch['inputs'], share = mixer(batch['inputs'], partner, share)
        batch['data_samples'] = mix_samples(
            batch['data_samples'], partner.tolist(), share, self.num_classes
        )
        return batch


def mix_images(images: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """Mixup: ``share`` of each image (N, 3, H, W) and the rest of its partner's."""
    return share * images + (1 - share) * images[partner], share


def cut_images(images: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """CutMix: a box about a random middle comes from the partner; the share that is left."""
    h, w = images.shape[2:]
    side = (1 - share) ** 0.5
    (y1, y2), (x1, x2) = (_cut(size, side) for size in (h, w))
    mixed = images.clone()
    mixed[:, :, y1:y2, x1:x2] = images[partner, :, y1:y2, x1:x2]
    return mixed, 1 - (y2 - y1) * (x2 - x1) / (h * w)


def _cut(size: int, share: float) -> tuple[int, int]:
    """Begin and end of a random interval of this share, cut off at the borders."""
    middle, half = int(torch.randint(size, ())), int(size * share) // 2
    return max(middle - half, 0), min(middle + half, size)


def mix_samples(samples: list, partner: list[int], share: float, num_classes: int) -> list:
    """Samples of the mixtures by the label rule of :class:`ClassificationDataPreprocessor`.

    One of an image without a label has none either.
    """
    mixed = []
    for sample, other in zip(samples, (samples[i] for i in partner), strict=True):
        unknown = next((x for x in (sample, other) if 'gt_label' not in x), None)
        if unknown is not None:
            mixed.append(unknown)
            continue
        own, strange = (
            x.get('gt_score', F.one_hot(x.gt_label.flatten()[0], num_classes).float())
            for x in (sample, other)
        )
        score = share * own + (1 - share) * strange
        mixed.append((sample if share >= 0.5 else other).clone().set_gt_score(score))
    return mixed
