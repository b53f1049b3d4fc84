"""Pixel formats of models, and the conversion of a batch between two models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Pixels:
    """The pixel format of a model: channels, mean, std, channel order, padding and divisor.

    Read off its data preprocessor, in the order of the channels after conversion.

    Args:
        preprocessor (nn.Module | None): of the model.
        channels (int | None): of an image, if not given by the preprocessor.

    Attributes:
        channels (int): of an image: 1 is grey, 3 is RGB or BGR.
        mean, std (Tensor): of each channel.
    """

    def __init__(self, preprocessor: nn.Module | None, channels: int | None = None) -> None:
        mean = std = None
        if getattr(preprocessor, '_enable_normalize', False):
            mean, std = (
                getattr(preprocessor, n).detach().float().flatten() for n in ('mean', 'std')
            )
        if mean is not None and len(mean) > 1:  # a single mean may be that of all channels
            channels = len(mean)
        self.channels = channels or 3
        self.mean = torch.zeros(self.channels) if mean is None else mean.expand(self.channels)
        self.std = torch.ones(self.channels) if std is None else std.expand(self.channels)
        self.swapped = bool(getattr(preprocessor, '_channel_conversion', False))
        self.pad = float(getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0)))
        self.divisor = int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)

    @classmethod
    def of(cls, model: nn.Module) -> Pixels:
        return cls(getattr(model, 'data_preprocessor', None), _first_channels(model))

    def check_source(self, source: Pixels, who: str) -> None:
        """Refuse a student whose images cannot be translated for this model, else ValueError."""
        if source.channels not in (1, self.channels):
            raise ValueError(
                f'{who} takes images of {self.channels} channels and the student of '
                f'{source.channels}. Only grey images (1 channel) can be shown to a teacher of '
                f'other channels; use a teacher of {source.channels} channels.'
            )

    def same_values(self, other: Pixels) -> bool:
        return (
            self.swapped == other.swapped
            and self.pad == other.pad
            and torch.equal(self.mean.cpu(), other.mean.cpu())
            and torch.equal(self.std.cpu(), other.std.cpu())
        )

    def translate(self, inputs: Tensor, samples: list, source: Pixels) -> Tensor:
        """(N, C, H, W) normalised and padded for ``source`` -> the same images for this model.

        A grey image becomes one of equal channels.
        """
        if not self.same_values(source):
            inputs = self._restore_padding(self.renormalise(inputs, source), samples)
        h, w = inputs.shape[2:]
        extra = (-w % self.divisor, -h % self.divisor)
        if any(extra):
            inputs = F.pad(inputs, (0, extra[0], 0, extra[1]), value=self.pad)
        return inputs

    def renormalise(self, inputs: Tensor, source: Pixels) -> Tensor:
        """(N, C, H, W) normalised for ``source`` -> the same for this model, padding as it is."""
        order = list(range(self.channels))
        if self.swapped != source.swapped and self.channels == 3:
            order.reverse()
        inputs = inputs.expand(-1, self.channels, -1, -1)
        mean_s, std_s = (v.cpu().expand(self.channels)[order] for v in (source.mean, source.std))
        scale, shift = std_s / self.std.cpu(), (mean_s - self.mean.cpu()) / self.std.cpu()
        scale, shift = (v.to(inputs).view(1, -1, 1, 1) for v in (scale, shift))
        return inputs[:, order] * scale + shift

    def _restore_padding(self, inputs: Tensor, samples: list) -> Tensor:
        for image, sample in zip(inputs, samples, strict=True):
            h, w = sample.metainfo.get('img_shape', image.shape[1:])[:2]
            image[:, h:] = self.pad
            image[:, :, w:] = self.pad
        return inputs

    def __str__(self) -> str:
        order = 'RGB' if self.swapped else 'BGR'
        if self.channels != 3:
            order = 'grey' if self.channels == 1 else f'{self.channels} channels,'
        mean, std = ([round(v, 3) for v in x.tolist()] for x in (self.mean, self.std))
        return f'{order} mean {mean} std {std}, padding {self.pad:g} to multiples of {self.divisor}'


def _first_channels(model: nn.Module) -> int | None:
    """Channels of the images that the first convolution of the backbone takes; None without one."""
    for module in getattr(model, 'backbone', model).modules():
        if type(module).__name__ == 'Focus':  # moves blocks of 2 x 2 pixels into channels first
            return (_first_channels(module.conv) or 12) // 4
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return None


def picture(model: nn.Module, size: int) -> Tensor:
    """An image (1, C, size, size) in float32 with which parts of a network can be compared.

    It is not constant: normalisation layers and proposal heads meet ordinary numbers.
    """
    line = torch.linspace(-2, 2, size, device=next(model.parameters()).device)
    image = line[:, None] * line.flip(0)[None]
    return image.expand(1, Pixels.of(model).channels, size, size).contiguous()


def fitted(pixels: Pixels, inputs: Tensor, samples: list, source: Pixels) -> tuple[Tensor, list]:
    """A batch of ``source`` in another network's normalisation and padding, and its samples."""
    inputs = pixels.translate(inputs, samples, source)
    return inputs, _with_batch_shape(samples, inputs)


def _with_batch_shape(samples: list, inputs: Tensor) -> list:
    """Samples that agree with inputs padded further for the teacher; the originals stay."""
    shape = tuple(inputs.shape[2:])
    old = samples[0].metainfo.get('batch_input_shape') if samples else None
    if old is None or tuple(old) == shape:
        return samples
    copies = [sample.new() for sample in samples]
    for sample in copies:
        sample.set_metainfo(dict(batch_input_shape=shape))
    return copies
