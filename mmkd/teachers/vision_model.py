"""VisionModel: an image encoder of timm, transformers or a file, whose patches are maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmkd.checkpoint import refuse_not_finite
from mmkd.checkpoint.fitting import mismatch_message
from mmkd.encoders import Encoder, PatchMaps, build_encoder
from mmkd.options import check_list, check_normalisation, check_number, check_size
from mmkd.teacher import Teacher, load_strictly
from mmkd.teachers.kinds import kind


@kind
class VisionModel(Teacher):
    """A frozen image encoder that was made elsewhere: a foundation model, for instance.

    It shows ``maps``, one (N, D, H / patch, W / patch) for each of its ``layers``, without class
    and register tokens, and ``pooled`` (N, D), the class token of the last one or else the mean of
    its patches. It has its own normalisation; a batch is padded with its mean pixel to multiples of
    the patch.

    Args:
        model (str | nn.Module): ``'timm/NAME'`` or ``'transformers/NAME'``, where NAME is a folder
            or a model in the hub's cache; ``'file.py:name'`` or ``'package.module:name'``, a module
            of torch, something that makes one, or a function of images; or a module.
        checkpoint (str | None): file of weights, each of which must fit; None: those of the folder
            or the hub; ``'random'``: untrained; ``'own'``: those with which a file's module comes.
        layers (list[int]): blocks from 0, or from -1, the last; stages of a convolutional network.
        norm (bool): the network's last normalisation is applied to the maps.
        size (int | list[int] | None): height and width to which its images are resized, for models
            that take one size; a number is both. None: the size of the batch.
        mean, std (list[float] | None): of RGB from 0 to 255; None: what the model's files say, else
            ImageNet's.
        patch (int | None): of a file's module, pixels of a token's side; None: its ``patch_size``.
        download (bool): fetch from the hub what is not there.
        dtype, stream, ignore_keys, view: see :class:`~mmkd.teacher.Teacher`.

    Raises:
        ImportError: the library is not installed.
        FileNotFoundError: no such folder, or no weights in it.
        ValueError: weights that do not fit; a layer that there is not; a size that is no multiple
            of the patch; a network without maps.
    """

    asks = False

    def __init__(
        self,
        model: str | nn.Module,
        checkpoint: str | None = None,
        layers: Sequence[int] = (-1,),
        norm: bool = True,
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        patch: int | None = None,
        download: bool = False,
        dtype: str | None = None,
        stream: bool = False,
        ignore_keys: Sequence[str] = (),
        view: str = '',
    ) -> None:
        owner = type(self).__name__
        numbers = [
            check_number(owner, 'a layer', i, whole=True)
            for i in check_list(owner, 'layers', layers)
        ]
        if not numbers:
            raise ValueError(f'{owner}: layers=[] shows nothing; -1 is the last layer.')
        options = dict(layers=numbers, norm=norm, patch=patch, download=download)
        encoder = build_encoder(model, checkpoint, **options)
        ignored = [ignore_keys] if isinstance(ignore_keys, str) else list(ignore_keys)
        loaded = _load(encoder, checkpoint, ignored)
        pixels = check_normalisation(
            owner, encoder.mean if mean is None else mean, encoder.std if std is None else std
        )
        sides = _size(owner, size, encoder)
        encoder.eval()
        if sides is None:
            encoder.try_out()
        network = PatchMaps(encoder, sides, *pixels)
        super().__init__(network, 'random', dtype=dtype, stream=stream, view=view)
        self.title = encoder.title
        self.source, self.loaded_keys = ('random', 0) if checkpoint == 'random' else loaded

    @property
    def loaded(self) -> str:
        if self.source == 'random':
            return f'{self.title}, RANDOM WEIGHTS'
        return f'{self.title}, {self.loaded_keys or "its own"} keys from {self.source}'


def _load(encoder: Encoder, checkpoint: str | None, ignored: list[str]) -> tuple[str, int]:
    """Every weight, or a ValueError; where they are from, and how many."""
    network = encoder.network
    if checkpoint in ('random', 'own'):
        return encoder.source, 0
    if encoder.fit is None:
        file = checkpoint or encoder.file
        return file, load_strictly(network, file, ignored)
    lines = encoder.fit.without(ignored).lines(10)
    if lines:
        raise ValueError(mismatch_message(encoder.fit, encoder.source, lines, 'teacher'))
    refuse_not_finite(network.state_dict(), f'teacher: {encoder.source}', network)
    return encoder.source, encoder.fit.loaded


def _size(owner: str, size: Any, encoder: Encoder) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = check_size(owner, size)
    patch = encoder.patch
    if height % patch or width % patch:
        near = [max(1, round(side / patch)) * patch for side in (height, width)]
        raise ValueError(
            f'{owner}: size={(height, width)} is no multiple of the patch of {patch} pixels of '
            f'{encoder.title}. Take {tuple(near)}.'
        )
    return height, width
