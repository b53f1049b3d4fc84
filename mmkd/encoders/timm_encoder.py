"""Encoders of timm."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmkd.encoders.encoder import IMAGENET, Encoder, positions, refuse_patch, summary
from mmkd.encoders.hub import folder_of, weights_in
from mmkd.names import did_you_mean


class TimmEncoder(Encoder):
    """A model of timm, by its name or by a folder of the hub.

    Args:
        name (str): such as ``'vit_small_patch14_dinov2.lvd142m'``, or a folder with ``config.json``
            and ``model.safetensors``.
        checkpoint (str | None): None: the weights of the folder, or the hub's.
        layers (Sequence[int]): blocks, or stages of a convolutional network.
        norm (bool): the last normalisation is applied to the map of each block.
        download (bool): fetch from the hub what is not there.

    Raises:
        ImportError: timm is not installed, or torchvision, which it needs, does not load.
        ValueError: no model of this name; one without maps; a layer that it has not.
    """

    def __init__(
        self,
        name: str,
        checkpoint: str | None,
        layers: Sequence[int] = (-1,),
        norm: bool = True,
        patch: int | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        timm = _library()
        self.title = self.source = f'timm/{name}'
        refuse_patch(self.title, patch)
        folder = name if Path(name).expanduser().is_dir() else ''
        if not folder and not timm.is_model(name.partition('.')[0]):
            hint = did_you_mean(name, timm.list_models())
            raise ValueError(f'timm has no model {name!r}, and there is no such folder.{hint}')
        address = f'local-dir:{Path(folder).expanduser()}' if folder else name
        self.network = network = _built(timm, address)
        if not hasattr(network, 'forward_intermediates'):
            raise ValueError(
                f'{self.title} gives no maps of its layers (forward_intermediates), with which '
                'student maps could be compared. Take another model of timm.'
            )
        known = getattr(network, 'pretrained_cfg', {})
        if checkpoint is None:
            hub = _hub_name(known.get('hf_hub_id') or f'timm/{name}', known.get('tag'), name)
            self.file = weights_in(folder or folder_of(hub, 'timm/', download))
        size = known.get('input_size')
        self.size = tuple(size[1:]) if size else None
        self.mean = [255 * x for x in known.get('mean') or (x / 255 for x in IMAGENET[0])]
        self.std = [255 * x for x in known.get('std') or (x / 255 for x in IMAGENET[1])]
        own = getattr(getattr(network, 'patch_embed', None), 'patch_size', None)
        reductions = [info['reduction'] for info in network.feature_info]
        self.patch = max(own) if own else max(reductions)
        self.layers = positions(self.title, layers, len(reductions))
        known_options = inspect.signature(network.forward_intermediates).parameters
        self.options: dict[str, Any] = dict(norm=norm) if 'norm' in known_options else {}
        if 'return_prefix_tokens' in known_options:
            self.options['return_prefix_tokens'] = True

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        found = self.network.forward_intermediates(
            x, indices=self.layers, output_fmt='NCHW', intermediates_only=True, **self.options
        )
        pairs = [pair if isinstance(pair, tuple) else (pair, None) for pair in found]
        patches, front = pairs[-1]
        empty = patches.new_zeros(len(patches), 0, patches.shape[1])
        return [pair[0] for pair in pairs], summary(patches, empty if front is None else front)


def _library() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision of another torch
        raise ImportError(
            f'VisionModel: timm cannot be imported ({error}). Run pip install timm; it needs a '
            "torchvision that fits this torch. model='transformers/…' has many of the same models "
            'and needs none.'
        ) from None
    return timm


def _built(timm: Any, address: str) -> nn.Module:
    """Without weights, for images of any size where it can be, with the head of its own weights."""
    options: dict[str, Any] = dict(pretrained=False, dynamic_img_size=True)
    try:
        network = timm.create_model(address, **options)
    except TypeError:  # takes images of any size anyway, or of one size alone
        del options['dynamic_img_size']
        network = timm.create_model(address, **options)
    classes = getattr(network, 'pretrained_cfg', {}).get('num_classes')
    if classes is not None and classes != getattr(network, 'num_classes', classes):
        network = timm.create_model(address, num_classes=classes, **options)
    return network


def _hub_name(address: str, tag: str | None, name: str) -> str:
    """``'timm/'`` stands for the model of the same name there."""
    if not address.endswith('/'):
        return address
    tag = tag if '.' not in name else ''
    return f'{address}{name}.{tag}' if tag else f'{address}{name}'
