"""Stock functions predict from a distillation config or a checkpoint alone; the teacher is gone."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import Runner as StockRunner
from mmseg.apis import MMSegInferencer, inference_model, init_model
from recipes import MODELS, recipe

from mmkd.config import load_config
from mmkd.engine.launch import train
from mmkd.engine.wrapping import wrap_stock
from mmkd.teacher import build_model

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope='module', params=['frcnn', 'pspnet'])
def run(request, tmp_path_factory):
    """Folder of a finished run, whose teacher has been deleted since."""
    folder = tmp_path_factory.mktemp(request.param)
    kind = request.param
    student = recipe(kind, folder / 'data', folder / 'out', iterations=2)
    student.pop('experiment_name')
    local = 'mmdet.DetLocalVisualizer' if kind == 'frcnn' else 'mmseg.SegLocalVisualizer'
    student.visualizer = dict(type=local, name=f'{kind}_visualizer')
    student.test_pipeline = student.test_dataloader.dataset.pipeline
    for transform in student.test_pipeline:  # stock functions leave one out, by its plain name
        transform.type = transform.type.rpartition('.')[2]
    student.dump(folder / 'student.py')
    teacher = Config(dict(default_scope=student.default_scope, model=MODELS[kind](width=16)))
    teacher.dump(folder / 'teacher.py')
    torch.save(build_model(MODELS[kind](width=16)).state_dict(), folder / 'teacher.pth')
    names = (str(folder / name) for name in ('student.py', 'teacher.py', 'teacher.pth'))
    _, text = wrap_stock(*names, 'CWD')
    (folder / 'distil.py').write_text(text)
    train(load_config(str(folder / 'distil.py')), work_dir=str(folder / 'out'))
    for name in ('teacher.py', 'teacher.pth'):
        os.remove(folder / name)
    return kind, folder, str(folder / 'distil.py'), str(folder / 'out' / 'iter_2.pth')


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def same_weights(model, path):
    state = torch.load(path, weights_only=False)['state_dict']
    return all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_the_config_in_a_checkpoint_is_that_of_the_student(run):
    _, folder, _, path = run
    checkpoint = torch.load(path, weights_only=False)
    text = checkpoint['meta']['cfg']
    assert checkpoint['message_hub']['runtime_info']['cfg'] == text
    found = Config.fromstring(text, '.py').to_dict()
    wanted = Config.fromfile(folder / 'student.py').to_dict()
    added = {key: found.pop(key) for key in set(found) - set(wanted)}
    assert found == wanted
    assert set(added) <= {'launcher', 'resume', 'load_from'}
    assert 'mmkd.Distiller' in checkpoint['meta']['distillation_cfg']


def test_stock_test_takes_the_config_of_the_checkpoint(run):
    _, folder, _, path = run
    config = Config.fromstring(torch.load(path, weights_only=False)['meta']['cfg'], '.py')
    config.update(load_from=path, work_dir=str(folder / 'scores'), experiment_name=folder.name)
    assert StockRunner.from_cfg(config).test()


def test_models_are_initialised_from_the_distillation_config(run):
    kind, _, config, path = run
    detector = kind == 'frcnn'
    model = (init_detector if detector else init_model)(config, path, device='cpu')
    assert type(model).__name__ == ('FasterRCNN' if detector else 'EncoderDecoder')
    assert same_weights(model, path) and model.cfg.model.type == 'mmkd.Distiller'
    assert (inference_detector if detector else inference_model)(model, IMAGE)


@pytest.mark.parametrize('source', ['file', 'both'])
def test_inferencers_take_the_file_or_the_config_too(run, source):
    kind, folder, config, path = run
    model = config if source == 'both' else None
    if kind == 'frcnn':
        inferencer = DetInferencer(model=model, weights=path, device='cpu', show_progress=False)
        assert inferencer(IMAGE, no_save_vis=True)['predictions']
    else:  # which cannot do without a config
        model = model or str(folder / 'student.py')
        inferencer = MMSegInferencer(model, weights=path, device='cpu', show_progress=False)
        assert inferencer(IMAGE)['predictions'].shape == IMAGE.shape[:2]
    assert same_weights(inferencer.model, path)
    assert 'Distiller' not in str(type(inferencer.model))


def test_training_still_needs_the_teacher(run):
    _, folder, config, _ = run
    with pytest.raises(FileNotFoundError, match=str(folder / 'teacher.py')):
        train(load_config(config), work_dir=str(folder / 'again'))
    assert not Path(folder / 'again' / 'iter_2.pth').exists()
