"""An encoder from outside as teacher: weights, pixels, maps that methods compare, and refusals."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from teacher_toys import assert_same, train
from torch import nn

from mmkd.distiller import Distiller
from mmkd.teachers import VisionModel, build_teacher, frozen_networks
from mmkd.testing import classification_batch, detection_batch, tiny_classifier, tiny_retinanet

MAPS = dict(type='mmkd.FitNet', student='backbone.layer3', teacher='maps', resize='teacher')


class Patches(nn.Module):
    """Maps of stride 4 that are linear in the pixels."""

    def __init__(self, width=5):
        super().__init__()
        self.patch_size = (4, 4)
        self.conv = nn.Conv2d(3, width, 4, 4)

    def forward(self, x):
        return self.conv(x)


def vision(**options):
    torch.manual_seed(0)
    defaults = dict(type='mmkd.VisionModel', model=Patches(), checkpoint='own')
    return build_teacher(defaults | options)


@pytest.fixture
def transformers(monkeypatch):
    import library_toys

    monkeypatch.setitem(sys.modules, 'transformers', library_toys.transformers())
    return library_toys


def test_a_student_of_another_family_learns_from_its_maps():
    teacher = vision()
    distiller = Distiller(tiny_retinanet(4), dict(it=MAPS | dict(student='backbone[-1]')), teacher)
    inputs, samples = detection_batch(2)
    losses = distiller.train().loss(inputs, samples)
    losses['kd.it.loss'].backward()
    assert distiller.student.backbone.conv1.weight.grad.any()
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not any(key.startswith('teacher') for key in distiller.state_dict())
    plan = str(distiller.plan)
    assert 'VisionModel, PatchMaps' in plan and 'Patches, its own keys from Patches' in plan
    assert 'teacher maps: 5x64x64 (stride 4)' in plan


def test_it_sees_the_batch_in_its_own_pixels_padded_to_patches():
    teacher = vision(mean=[0, 0, 0], std=[1, 1, 1])
    distiller = Distiller(tiny_classifier(width=4), dict(it=MAPS), teacher, preflight=False)
    raw = torch.randint(0, 256, (2, 3, 30, 32)).float()  # BGR
    own = distiller.pixels
    order = [2, 1, 0] if own.swapped else [0, 1, 2]
    seen = (raw[:, order] - own.mean.view(1, -1, 1, 1)) / own.std.view(1, -1, 1, 1)
    _, samples = classification_batch(2, (30, 32))
    maps = teacher(seen, samples, own)['maps'][0]
    padded = nn.functional.pad(raw.flip(1), (0, 0, 0, 2))
    torch.testing.assert_close(maps, teacher.model.encoder.network(padded), rtol=1e-4, atol=1e-3)


def test_images_of_its_own_size():
    teacher = vision(size=(16, 24))
    distiller = Distiller(tiny_classifier(width=4), dict(it=MAPS), teacher, preflight=False)
    inputs, samples = classification_batch(2)
    assert teacher(inputs, samples, distiller.pixels)['maps'][0].shape == (2, 5, 4, 6)
    assert float(distiller.train().loss(inputs, samples)['kd.it.loss'].detach()) > 0


def test_every_weight_of_a_file_must_fit(tmp_path):
    network = Patches()
    file = tmp_path / 'weights.safetensors'
    save_file({k: v + 1 for k, v in network.state_dict().items()}, file)
    teacher = vision(model=network, checkpoint=str(file))
    assert teacher.loaded == f'Patches, 2 keys from {file}'
    save_file({**network.state_dict(), 'more': torch.zeros(1)}, file)
    with pytest.raises(ValueError, match='1 not in the model: more'):
        vision(checkpoint=str(file))
    assert vision(checkpoint=str(file), ignore_keys='more').loaded_keys == 2
    assert 'RANDOM WEIGHTS' in vision(checkpoint='random').loaded


def test_weights_of_a_folder_are_as_strict(transformers, tmp_path):
    options = dict(model=f'transformers/{tmp_path / "m"}', checkpoint=None)
    model = transformers.write_folder(tmp_path / 'm')
    state, file = model.state_dict(), tmp_path / 'm' / 'model.safetensors'
    assert vision(**options).loaded_keys == len(state)
    save_file({k: v for k, v in state.items() if k != 'front'} | dict(pooler=torch.ones(1)), file)
    with pytest.raises(
        ValueError, match='1 missing in the file: front(.|\n)*not in the model: pool'
    ):
        vision(**options)
    assert vision(**options, ignore_keys=['front', 'pooler']).loaded_keys == len(state) - 1
    save_file(state | dict(front=torch.zeros(1, 3, 8)), file)
    with pytest.raises(ValueError, match=r'1 of another shape: front .file \(1, 3, 8\), model'):
        vision(**options)
    save_file(state | dict(front=state['front'] * float('nan')), file)
    with pytest.raises(ValueError, match='NaN'):
        vision(**options)


def test_an_encoder_of_one_size(transformers, tmp_path):
    transformers.write_folder(tmp_path / 'm', normed=False)
    options = dict(model=f'transformers/{tmp_path / "m"}', checkpoint=None)
    with pytest.raises(ValueError, match=r'set size=\(16, 16\)'):
        vision(**options)
    assert vision(**options, size=16).model.size == (16, 16)


def test_precision_and_stream():
    teacher = vision(dtype='bf16', stream=True)
    distiller = Distiller(tiny_classifier(width=4), dict(it=MAPS), teacher, preflight=False)
    inputs, samples = classification_batch(2)
    maps = teacher(inputs, samples, distiller.pixels)['maps'][0]
    assert {p.dtype for p in teacher.model.parameters()} == {torch.bfloat16}
    assert maps.shape == (2, 5, 8, 8) and 'stream' in teacher.stream_note


def test_methods_that_ask_a_head_are_refused_and_it_is_no_network_of_a_config():
    entry = dict(type='mmkd.VisionModel', model='timm/x')
    assert frozen_networks(entry) == {}
    with pytest.raises(ValueError, match='VisionModel cannot answer'):
        vision().admit(type('Asks', (), dict(asks_teacher=True))())


def test_weight_zero_is_plain(tmp_path):
    objectives = dict(it=MAPS | dict(weight=0))
    teacher = dict(type='mmkd.VisionModel', model=Patches(), checkpoint='own')
    one = train(tmp_path / 'a', teacher=teacher, objectives=objectives, steps=2)
    assert_same(one, train(tmp_path / 'b', distils=False, steps=2))


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(checkpoint=None), ValueError, 'Patches has no checkpoint'),
        (dict(layers=[]), ValueError, 'shows nothing'),
        (dict(layers=[0.5]), ValueError, 'a layer must be a whole number'),
        (dict(size=(16, 18)), ValueError, r'no multiple of the patch of 4 .* Take \(16, 16\)'),
        (dict(size=(16, 16, 3)), ValueError, 'size must be a height and a width'),
        (dict(mean=[1, 2]), ValueError, 'mean must be three numbers'),
        (dict(std=[1, 2, 0]), ValueError, 'std must be a finite number above 0'),
        (dict(checkpoint='nowhere.pth'), FileNotFoundError, 'nowhere.pth'),
        (dict(config='x'), TypeError, 'has no option config'),
    ],
)
def test_bad_input(options, error, words):
    with pytest.raises(error, match=words):
        vision(**options)


def test_the_class_by_itself():
    assert isinstance(VisionModel(Patches(), 'own'), VisionModel)
