"""Tiny models of timm and transformers themselves, with random weights: `make test-outside`."""

import importlib.machinery
import sys
from types import ModuleType

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.teachers import build_teacher
from mmkd.testing import classification_batch, tiny_classifier

FITNET = dict(type='mmkd.FitNet', student='backbone.layer3', teacher='maps[-1]', resize='teacher')
SIZES = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=28
)
WORDS = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=50,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
SAM = dict(
    vision_config=dict(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_dim=16,
        image_size=64,
        output_channels=8,
        global_attn_indexes=[1],
        window_size=2,
    ),
    mask_decoder_config=dict(
        hidden_size=8, mlp_dim=8, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=8
    ),
    prompt_encoder_config=dict(hidden_size=8, image_size=64),
)
ViT = dict(SIZES, patch_size=14)
ENCODERS = {  # kind of config, its options, options of the teacher, width, patch
    'DINOv2': ('Dinov2Config', ViT, {}, 16, 14),
    'registers': ('Dinov2WithRegistersConfig', ViT, {}, 16, 14),
    'DINOv3': ('DINOv3ViTConfig', dict(SIZES, patch_size=16), {}, 16, 16),
    'ViT': ('ViTConfig', ViT, {}, 16, 14),
    'SigLIP': ('SiglipConfig', dict(vision_config=ViT, text_config=WORDS), {}, 16, 14),
    'CLIP': ('CLIPConfig', dict(vision_config=ViT, text_config=WORDS), {}, 16, 14),
    'SAM': ('SamConfig', SAM, dict(size=64), 8, 16),
}


def learns_from(**options):
    """Shapes of a teacher's maps for a batch of two, from which a student learns."""
    teacher = build_teacher(dict(type='mmkd.VisionModel', **options))
    model = Distiller(tiny_classifier(width=4), dict(it=FITNET), teacher, preflight=False).train()
    inputs, samples = classification_batch(2, (56, 80))
    loss = model.loss(inputs, samples)['kd.it.loss']
    loss.backward()
    assert bool(loss.isfinite()) and model.student.backbone.conv1.weight.grad.any()
    return [tuple(x.shape) for x in teacher(inputs, samples, model.pixels)['maps']]


@pytest.fixture(scope='module')
def transformers():
    return pytest.importorskip('transformers')


@pytest.mark.parametrize('name', ENCODERS)
def test_encoders_of_transformers(transformers, tmp_path, name):
    kind, config, options, width, patch = ENCODERS[name]
    network = transformers.AutoModel.from_config(getattr(transformers, kind)(**config)).eval()
    network.save_pretrained(tmp_path)
    layers = [-1] if name == 'SAM' else [0, -1]
    options = dict(options, model=f'transformers/{tmp_path}', layers=layers)
    size = (64, 64) if 'size' in options else (-(-56 // patch) * patch, -(-80 // patch) * patch)
    grid = size[0] // patch, size[1] // patch
    assert learns_from(**options) == [(2, width, *grid)] * len(layers)

    encoder = build_teacher(dict(type='mmkd.VisionModel', **options)).model.encoder
    x = torch.randn(1, 3, *size)
    tower = encoder.tower if encoder.tower is not encoder.network else network
    if tower is not network:
        name = next(n for n, child in encoder.network.named_children() if child is tower)
        tower = getattr(network, name)
    with torch.no_grad():
        wanted = tower(pixel_values=x, **encoder.options).last_hidden_state
        found = encoder(x)[0][-1]
    if wanted.dim() == 3:
        wanted = wanted[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(found, wanted)


def test_weights_of_transformers_are_strict(transformers, tmp_path):
    from safetensors.torch import load_file, save_file

    config = transformers.Dinov2Config(**ViT)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    file = tmp_path / 'model.safetensors'
    state = load_file(file)
    entry = dict(type='mmkd.VisionModel', model=f'transformers/{tmp_path}')
    save_file({k: v for k, v in state.items() if k != 'layernorm.bias'}, file, dict(format='pt'))
    with pytest.raises(ValueError, match='1 missing in the file: layernorm.bias'):
        build_teacher(entry)
    wide = dict(state, **{'layernorm.bias': torch.zeros(17)})
    save_file(wide, file, dict(format='pt'))
    with pytest.raises(ValueError, match='1 of another shape: layernorm.bias'):
        build_teacher(entry)
    file.unlink()
    torch.save(state, tmp_path / 'pytorch_model.bin')
    with pytest.raises(ValueError, match='cannot be loaded'):
        build_teacher(entry)
    assert build_teacher(entry | dict(checkpoint=str(tmp_path / 'pytorch_model.bin'))).loaded_keys


class Anything(type):
    """A class with every attribute."""

    def __getattr__(cls, name):
        return name if name[0] != '_' else _no(name)


class Pretence:
    """Modules in which every name is a class: torchvision, where it does not load."""

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torchvision':
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: Anything(name, (), {}) if name[0] != '_' else _no(name)
        return module

    def exec_module(self, module):
        module.__path__ = []


def _no(name):
    raise AttributeError(name)


@pytest.fixture(scope='module')
def timm():
    try:
        import torchvision  # noqa: F401

        pretence = None
    except (ImportError, RuntimeError):
        sys.meta_path.insert(0, pretence := Pretence())
    try:
        yield pytest.importorskip('timm')
    finally:
        if pretence is not None:
            sys.meta_path.remove(pretence)
            for name in [n for n in sys.modules if n.partition('.')[0] == 'torchvision']:
                del sys.modules[name]


@pytest.mark.parametrize(
    ('name', 'layers', 'shapes'),
    [
        ('test_vit', [0, -1], [(2, 64, 4, 5)] * 2),
        ('test_vit3', [-1], [(2, 96, 4, 5)]),
        ('test_resnet', [-2, -1], [(2, 192, 4, 6), (2, 96, 2, 3)]),
        ('test_convnext', [-1], [(2, 64, 2, 3)]),
    ],
)
def test_encoders_of_timm(timm, name, layers, shapes):
    assert learns_from(model=f'timm/{name}', checkpoint='random', layers=layers) == shapes


def test_weights_of_timm_are_strict(timm, tmp_path):
    network = timm.create_model('test_vit', num_classes=1000)
    torch.save(network.state_dict(), tmp_path / 'w.pth')
    entry = dict(type='mmkd.VisionModel', model='timm/test_vit', checkpoint=str(tmp_path / 'w.pth'))
    assert build_teacher(entry).loaded_keys == len(network.state_dict())
    torch.save({'nothing.weight': torch.zeros(1)}, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='does not fit VisionTransformer'):
        build_teacher(entry)


def test_hub_names_without_a_network(timm, monkeypatch, tmp_path):
    pytest.importorskip('huggingface_hub')
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='timm/test_vit.r160_in1k is neither a folder'):
        build_teacher(dict(type='mmkd.VisionModel', model='timm/test_vit'))
