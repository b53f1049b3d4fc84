"""A network in an ONNX file as teacher: what it gets and what is made of its answers."""

import base64
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.teacher import build_model
from mmkd.teachers import Onnx, build_teacher, onnx
from mmkd.testing import classification_batch, tiny_classifier

#: means of the channels of images of any size, and their softmax: written by the package onnx
MEANS = 'CAg6eQoeCgZpbWFnZXMSAXAiEUdsb2JhbEF2ZXJhZ2VQb29sChQKAXASBnNjb3JlcyIHRmxhdHRlbhIBZ1ojCgZpbWFnZXMSGQoXCAESEwoDEgFOCgIIAwoDEgFICgMSAVdiGQoGc2NvcmVzEg8KDQgBEgkKAxIBTgoCCANCBAoAEA0='


class Session:
    """Softmax of the channels' means, as onnxruntime would answer."""

    shape = ('N', 3, 'H', 'W')
    softmax = True

    def __init__(self, path, providers):
        self.path, self.seen, self.providers = path, [], providers
        if 'broken' in path:
            raise RuntimeError('no protobuf\nat all')

    def get_inputs(self):
        return [SimpleNamespace(name='images', shape=self.shape)]

    def get_outputs(self):
        return [SimpleNamespace(name='scores'), SimpleNamespace(name='other')]

    def run(self, outputs, feeds):
        images = feeds['images']
        self.seen.append(images)
        scores = images.mean((2, 3))
        if outputs == ['other']:
            return [scores.argmax(1)]
        powers = np.exp(scores)
        return [powers / powers.sum(1, keepdims=True) if self.softmax else scores]


@pytest.fixture
def session(monkeypatch, tmp_path):
    class Own(Session):
        pass

    module = ModuleType('onnxruntime')
    module.__spec__ = ModuleSpec('onnxruntime', None)
    module.InferenceSession, module.get_available_providers = Own, lambda: ['CPU']
    monkeypatch.setitem(sys.modules, 'onnxruntime', module)
    monkeypatch.chdir(tmp_path)
    for name in ('net', 'broken'):
        (tmp_path / f'{name}.onnx').write_bytes(b'x')
    return Own


def distil(**options):
    teacher = build_teacher(dict(type='mmkd.Onnx', file='net.onnx') | options)
    student = build_model(tiny_classifier(width=4))
    return Distiller(student, dict(it=dict(type='mmkd.KD')), teacher, preflight=False)


def answer(model, count=2):
    inputs, samples = classification_batch(count)
    return model.teachers['teacher'](inputs, samples, model.pixels)['head.fc'][0]


def test_it_gets_normalised_rgb_and_its_answer_becomes_logits(session):
    model = distil(mean=[0, 0, 0], std=[255, 255, 255])
    logits = answer(model)
    teacher = model.teachers['teacher']
    (seen,) = teacher.session.seen
    assert seen.shape == (2, 3, 32, 32) and seen.dtype == np.float32
    assert seen.min() >= 0 and 0.5 < seen.max() <= 1
    powers = np.exp(seen.mean((2, 3)))
    wanted = torch.from_numpy(powers / powers.sum(1, keepdims=True))
    torch.testing.assert_close(logits.softmax(1), wanted, rtol=1e-4, atol=1e-5)
    assert teacher.asked == 2 and 'net.onnx' in str(model.plan)


def test_logits_labels_and_another_output(session):
    session.softmax = False
    with pytest.raises(ValueError, match='rows sum to 1'):
        answer(distil())
    model = distil(logits=True)
    scores = answer(model)
    (seen,) = model.teachers['teacher'].session.seen
    wanted = torch.from_numpy(seen.mean((2, 3))).softmax(1)
    torch.testing.assert_close(scores.softmax(1), wanted, rtol=1e-4, atol=1e-5)
    hard = answer(distil(hard=True, output='other'))
    assert sorted(set(hard.exp().flatten().round(decimals=3).tolist())) == [0, 1]


def test_a_file_that_fixes_its_sizes(session):
    session.shape = (2, 3, 8, 8)
    model = distil()
    assert answer(model, 3).shape == (3, 3)
    assert [x.shape for x in model.teachers['teacher'].session.seen] == [(2, 3, 8, 8)] * 2
    teacher = model.teachers['teacher']
    teacher.by_pixel = True  # of a segmentor, whose answers belong to places
    with pytest.raises(ValueError, match='takes images of 8 x 8 pixels, but the batch has 16 x 9'):
        teacher.answer(np.zeros((1, 16, 9, 3)))


def test_every_process_runs_it_on_its_own_gpu(session, monkeypatch):
    names = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr('onnxruntime.get_available_providers', lambda: names)
    assert onnx._session('net.onnx').providers == names
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 3)
    assert onnx._session('net.onnx').providers == [(names[0], dict(device_id=3)), names[1]]


def test_a_budget(session):
    with pytest.raises(ValueError, match='budget of 1 images is spent'):
        answer(distil(budget=1))


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(file='nowhere.onnx'), FileNotFoundError, 'no file nowhere.onnx'),
        (dict(file='broken.onnx'), ValueError, 'cannot read broken.onnx .no protobuf at all'),
        (dict(output='x'), ValueError, "no output 'x', but scores, other"),
        (dict(logits=True, hard=True), ValueError, 'logits=True makes probabilities and'),
        (dict(mean=['a']), ValueError, 'mean must be a finite number'),
        (dict(mean=[1, 2]), ValueError, 'mean must be three numbers'),
        (dict(std=[1, 2, 0]), ValueError, 'std must be a finite number above 0'),
    ],
)
def test_bad_input(session, options, error, words):
    with pytest.raises(error, match=words):
        Onnx(**(dict(file='net.onnx') | options))


def test_several_inputs_and_no_library(session, monkeypatch):
    monkeypatch.setattr(session, 'get_inputs', lambda self: [SimpleNamespace(name=n) for n in 'ab'])
    with pytest.raises(ValueError, match='has the inputs a, b; one of images is wanted'):
        Onnx('net.onnx')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r"pip install 'mmkd\[onnx\]'"):
        Onnx('net.onnx')


def test_a_real_file(tmp_path):
    file = tmp_path / 'means.onnx'
    file.write_bytes(base64.b64decode(MEANS))
    model = distil(file=str(file), logits=True)
    scores = answer(model)
    assert scores.shape == (2, 3) and bool(scores.isfinite().all())
    with pytest.raises(ValueError, match='rows sum to 1|no probabilities|least is'):
        answer(distil(file=str(file)))
