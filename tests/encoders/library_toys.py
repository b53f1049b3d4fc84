"""What the encoders ask of timm and transformers, small: the libraries themselves take seconds to
import and are not there everywhere; ``test_real_libraries.py`` runs the same checks on them."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch import nn

WIDTH, PATCH, LAYERS, FRONT = 8, 4, 3, 2


class Blocks(nn.Module):
    """A 'vision transformer': patches, some tokens in front, layers that mix nothing."""

    def __init__(self, layers=LAYERS, front=FRONT):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.patch_embed.patch_size = (PATCH, PATCH)
        self.front = nn.Parameter(torch.randn(1, front, WIDTH))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))
        self.layernorm = nn.LayerNorm(WIDTH)

    def steps(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.front.expand(len(x), -1, -1), x), 1)
        for layer in self.layers:
            x = layer(x)
            yield x


# ---------------------------------------------------------------------------------------- timm


class TimmBlocks(Blocks):
    def __init__(self, num_classes=5, dynamic_img_size=False):
        super().__init__()
        self.dynamic, self.num_classes = dynamic_img_size, num_classes
        self.head = nn.Linear(WIDTH, num_classes) if num_classes else nn.Identity()
        self.feature_info = [dict(reduction=PATCH) for _ in self.layers]
        self.pretrained_cfg = dict(
            mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_size=(3, 16, 16), num_classes=0
        )

    def forward_intermediates(
        self, x, indices, return_prefix_tokens, norm, output_fmt, intermediates_only
    ):
        assert self.dynamic or x.shape[2:] == (16, 16), 'Input size does not match model'
        assert output_fmt == 'NCHW' and intermediates_only and return_prefix_tokens
        grid, found = [side // PATCH for side in x.shape[2:]], []
        for i, tokens in enumerate(self.steps(x)):
            if i in indices:
                tokens = self.layernorm(tokens) if norm else tokens
                patches = tokens[:, FRONT:].transpose(1, 2).unflatten(2, grid)
                found.append((patches, tokens[:, :FRONT]))
        return found


class TimmConvs(nn.Module):
    """A convolutional network: no option for sizes, none for norms, no tokens in front."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 6, 2, 2)])
        self.feature_info = [dict(reduction=2), dict(reduction=4)]
        self.pretrained_cfg = dict(hf_hub_id='timm/')

    def forward_intermediates(self, x, indices, output_fmt, intermediates_only):
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            found += [x] * (i in indices)
        return found


MODELS = dict(toy_vit=TimmBlocks, toy_convs=TimmConvs, toy_mapless=lambda: nn.Linear(1, 1))


def timm():
    module = ModuleType('timm')
    module.is_model, module.list_models = MODELS.__contains__, lambda: [*MODELS]

    def create_model(name, pretrained, **options):
        assert not pretrained
        if name.startswith('local-dir:'):
            config = json.loads(Path(name.removeprefix('local-dir:'), 'config.json').read_text())
            name = config['architecture']
        torch.manual_seed(0)
        return MODELS[name.partition('.')[0]](**options)

    module.create_model = create_model
    return module


# -------------------------------------------------------------------------------- transformers


class Model(Blocks):
    """Its own answer is normalised; a 'SAM' has no normalisation and one size."""

    main_input_name = 'pixel_values'

    def __init__(self, config):
        super().__init__(config.num_hidden_layers, config.front)
        self.config = config
        if not config.normed:
            self.layernorm = None

    def forward(self, pixel_values, interpolate_pos_encoding=False):
        assert interpolate_pos_encoding
        size = self.config.image_size
        if not self.config.normed and pixel_values.shape[2:] != (size, size):
            raise ValueError("Input image size doesn't match model")
        *_, last = self.steps(pixel_values)
        last = self.layernorm(last) if self.layernorm else last
        return SimpleNamespace(last_hidden_state=last)

    @classmethod
    def from_pretrained(cls, folder, config, state_dict, **options):
        assert folder is None and options['output_loading_info']
        return _loaded(cls(config), state_dict)


def _loaded(model, state):
    own = model.state_dict()
    wrong = {k: v.shape for k, v in state.items() if k in own and v.shape != own[k].shape}
    fitting = {k: v for k, v in state.items() if k not in wrong}
    result = model.load_state_dict(fitting, strict=False)
    return model, dict(
        missing_keys=[k for k in result.missing_keys if k not in wrong],
        unexpected_keys=result.unexpected_keys,
        mismatched_keys=[(k, shape, own[k].shape) for k, shape in wrong.items()],
    )


class TwoTowers(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.text_model, self.vision_model = nn.Linear(2, 2), Model(config)


CONFIG = dict(
    model_type='toy',
    patch_size=PATCH,
    num_hidden_layers=LAYERS,
    image_size=16,
    front=FRONT,
    normed=True,
    towers=1,
)


def transformers():
    module = ModuleType('transformers')
    module.__version__ = 'toy'

    class AutoConfig:
        @staticmethod
        def from_pretrained(folder, local_files_only, trust_remote_code):
            assert local_files_only and not trust_remote_code
            found = json.loads(Path(folder, 'config.json').read_text())
            if found['model_type'] != 'toy':
                raise ValueError(f'unknown model type {found["model_type"]}')
            return SimpleNamespace(**found)

    class AutoModel:
        @staticmethod
        def from_config(config, dtype):
            torch.manual_seed(0)
            return TwoTowers(config) if config.towers == 2 else Model(config)

        @classmethod
        def from_pretrained(cls, folder, config, dtype, **options):
            assert options['use_safetensors'] and not options['trust_remote_code']
            file = Path(folder, 'model.safetensors')
            if not file.is_file():
                raise OSError(f'no file named model.safetensors found in {folder}')
            return _loaded(cls.from_config(config, dtype), load_file(file))

    module.AutoConfig, module.AutoModel = AutoConfig, AutoModel
    return module


def write_folder(folder, weights=True, pixels=True, **changes):
    """A folder as the hub has it; returns the model whose weights are in it."""
    folder.mkdir(exist_ok=True)
    config = CONFIG | changes
    (folder / 'config.json').write_text(json.dumps(config))
    if pixels:
        found = dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.2])
        (folder / 'preprocessor_config.json').write_text(json.dumps(found))
    model = transformers().AutoModel.from_config(SimpleNamespace(**config), None)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    if weights:
        save_file(model.state_dict(), folder / 'model.safetensors')
    return model.eval()
