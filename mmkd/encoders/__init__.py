"""Image encoders of other libraries, as networks whose outputs are maps of patches."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmkd.encoders.encoder import Encoder
from mmkd.encoders.module_encoder import ModuleEncoder
from mmkd.encoders.patch_maps import PatchMaps
from mmkd.encoders.timm_encoder import TimmEncoder
from mmkd.encoders.transformers_encoder import TransformersEncoder

__all__ = ['Encoder', 'PatchMaps', 'build_encoder']

#: what a model's name begins with, of those that come from a library
LIBRARIES: dict[str, type[Encoder]] = dict(timm=TimmEncoder, transformers=TransformersEncoder)


def build_encoder(model: Any, checkpoint: str | None, **options: Any) -> Encoder:
    """An encoder from ``'timm/…'``, ``'transformers/…'``, ``'module:name'`` or a module.

    Args:
        checkpoint (str | None): ``'random'`` leaves the weights as they are built; any other is
            loaded by the caller, into :attr:`Encoder.network`; None: those of the folder or hub.
        **options: ``layers``, ``norm``, ``patch`` and ``download``.

    Raises:
        TypeError, ValueError, ImportError, FileNotFoundError: see the encoders.
    """
    if isinstance(model, nn.Module):
        return ModuleEncoder(model, checkpoint, **options)
    if not isinstance(model, str):
        raise TypeError(
            "VisionModel: model must be 'timm/NAME', 'transformers/FOLDER', 'file.py:name' or a "
            f'module, found {model!r}.'
        )
    library, _, name = model.partition('/')
    if library in LIBRARIES and name:
        return LIBRARIES[library](name, checkpoint, **options)
    if ':' in model:
        return ModuleEncoder(model, checkpoint, **options)
    raise ValueError(
        f'VisionModel: it is not known which library has model={model!r}. Write timm/{model}, '
        f"transformers/{model}, or 'file.py:name' of a module of your own."
    )
