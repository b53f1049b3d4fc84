"""Encoders of transformers: those whose layers keep a token for each patch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.checkpoint import read_checkpoint
from mmkd.checkpoint.fitting import Fit
from mmkd.checkpoint.weights import weights_in
from mmkd.encoders.encoder import IMAGENET, Encoder, as_map, positions, refuse_patch, summary
from mmkd.encoders.hub import folder_of

#: the image encoder of a model of images and words, or of masks
TOWERS = ('vision_model', 'vision_encoder', 'vision_tower')
#: the last normalisation of an encoder
NORMS = ('layernorm', 'post_layernorm', 'norm', 'layer_norm')


class TransformersEncoder(Encoder):
    """A vision transformer of transformers, such as DINOv2, DINOv3, SigLIP, CLIP or SAM's encoder.

    No code of the folder is run, and of its weights ``*.safetensors`` alone are read.

    Args:
        name (str): a folder with ``config.json``, weights and, for the normalisation of images,
            ``preprocessor_config.json``; or the name of a model in the hub's cache.
        checkpoint (str | None): a file; ``'random'``; None: the weights of the folder.
        layers (Sequence[int]): blocks; the last one's map is the encoder's own output.
        norm (bool): the last normalisation is applied to the maps of inner blocks as well; False:
            the bare sums of residuals, also of the last.
        download (bool): fetch from the hub what is not there.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: no such folder, or no config in it.
        ValueError: no encoder of patches; a layer that it has not; ``norm`` without one.
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
        library = _library()
        self.title = f'transformers/{name}'
        refuse_patch(self.title, patch)
        self.source = folder = folder_of(name, 'transformers/', download)
        config = self._config(library, folder)
        if checkpoint == 'random':
            self.network = library.AutoModel.from_config(config, dtype=torch.float32)
        else:
            self.network = self._with_weights(library, folder, config, checkpoint)
        tower = next((n for n in TOWERS if getattr(self.network, n, None) is not None), '')
        self.tower: nn.Module = getattr(self.network, tower) if tower else self.network
        own = getattr(self.tower, 'config', config)
        self._read_sizes(own)
        self._read_pixels(folder)
        self.blocks = _blocks(self.title, self.tower, int(own.num_hidden_layers))
        self.layers = positions(self.title, layers, len(self.blocks))
        self.norm, self.last = norm, len(self.blocks) - 1
        self.normalise = next((n for n in NORMS if getattr(self.tower, n, None) is not None), '')
        if norm and not self.normalise and {*self.layers} != {self.last}:
            raise ValueError(
                f'{self.title} has no normalisation behind its last block, so maps of inner blocks '
                'cannot pass through it. Set norm=False, or layers=(-1,).'
            )
        parameters = inspect.signature(self.tower.forward).parameters
        self.options = {k: True for k in ('interpolate_pos_encoding',) if k in parameters}

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        kept: dict[int, Tensor] = {}
        wanted = [i for i in self.layers if not (self.norm and i == self.last)]
        handles = [self.blocks[i].register_forward_hook(_keep(kept, i)) for i in {*wanted}]
        try:
            answer = self.tower(pixel_values=x, **self.options)
        finally:
            for handle in handles:
                handle.remove()
        if self.norm:
            module = getattr(self.tower, self.normalise, None)
            kept = {i: module(tokens) for i, tokens in kept.items()}
            kept[self.last] = answer.last_hidden_state
        grid = x.shape[2] // self.patch, x.shape[3] // self.patch
        maps = [as_map(self.title, kept[i], grid) for i in self.layers]
        return [patches for patches, _ in maps], summary(*maps[-1])

    def _config(self, library: Any, folder: str) -> Any:
        if not Path(folder, 'config.json').is_file():
            raise FileNotFoundError(
                f'VisionModel: {folder} has no config.json, which says what model it holds.'
            )
        options = dict(local_files_only=True, trust_remote_code=False)
        try:
            return library.AutoConfig.from_pretrained(folder, **options)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f'{self.title}: its config is of no model that transformers {library.__version__} '
                f'has ({" ".join(str(error).split()):.300}). Models that bring code of their own '
                "are not run; write a file with the module: model='file.py:name'."
            ) from None

    def _with_weights(
        self, library: Any, folder: str, config: Any, checkpoint: str | None
    ) -> nn.Module:
        """By the library, which knows older names of weights."""
        options: dict[str, Any] = dict(
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused with the others
        )
        kind = library.AutoModel
        if checkpoint is None:
            options |= dict(local_files_only=True, use_safetensors=True, trust_remote_code=False)
        else:
            with torch.device('meta'):  # of this one no more than the class is wanted
                kind = type(library.AutoModel.from_config(config, dtype=torch.float32))
            options['state_dict'] = weights_in(read_checkpoint(checkpoint))
            self.source = checkpoint
        try:
            network, report = kind.from_pretrained(None if checkpoint else folder, **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f'{self.title}: the weights of {self.source} cannot be loaded '
                f'({" ".join(str(error).split()):.400}). The folder must hold *.safetensors that '
                'fit its config.json; for a file of another format set checkpoint=.'
            ) from None
        self.fit = Fit(
            type(network).__name__,
            len(network.state_dict()),
            missing=sorted(map(str, report['missing_keys'])),
            unexpected=sorted(map(str, report['unexpected_keys'])),
            shapes={key: (tuple(a), tuple(b)) for key, a, b in report['mismatched_keys']},
        )
        return network

    def _read_sizes(self, config: Any) -> None:
        own = getattr(config, 'patch_size', None)
        if own is None or getattr(config, 'num_hidden_layers', None) is None:
            raise ValueError(
                f'{self.title} is a {type(self.tower).__name__}, which is no transformer of image '
                'patches. Take one, a model of timm, or a module of your own.'
            )
        self.patch = max(own) if isinstance(own, (list, tuple)) else int(own)
        size = getattr(config, 'image_size', None)
        if size is not None:
            sides = list(size) if isinstance(size, (list, tuple)) else [size] * 2
            self.size = int(sides[0]), int(sides[1])

    def _read_pixels(self, folder: str) -> None:
        path = Path(folder, 'preprocessor_config.json')
        found = json.loads(path.read_text()) if path.is_file() else {}
        found = found.get('image_processor', found)
        scaled = found.get('do_rescale', True)
        for name, key, default in (('mean', 'image_mean', 0), ('std', 'image_std', 1)):
            values = found.get(key)
            factor = 255 if scaled else 1
            chosen = IMAGENET[default] if values is None else [factor * x for x in values]
            setattr(self, name, [float(x) for x in chosen])


def _library() -> Any:
    try:
        import transformers
        from transformers import AutoConfig, AutoModel  # noqa: F401  parts of it load when asked
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f'VisionModel: transformers cannot be imported ({" ".join(str(error).split()):.200}). '
            "Run pip install 'mmkd[transformers]'."
        ) from None
    return transformers


def _blocks(title: str, tower: nn.Module, count: int) -> nn.ModuleList:
    """The list of its transformer blocks."""
    for _, module in tower.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f'{title} has no list of {count} blocks, whose maps could be compared.')


def _keep(kept: dict[int, Tensor], index: int) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        kept[index] = output[0] if isinstance(output, tuple) else output

    return hook
