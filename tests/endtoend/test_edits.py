"""Edited students in real runs: their config, their scores in stock tools, two ranks."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner as StockRunner
from recipes import MODELS, distilled, recipe
from torch import nn
from two_ranks import after_steps, of_two_ranks, uneven

from mmkd.distiller import Distiller
from mmkd.engine import launch
from mmkd.engine.launch import build_runner, prepare
from mmkd.registry import MODELS as REGISTRY
from mmkd.teacher import Teacher, build_model, load_strictly
from mmkd.testing import tiny_faster_rcnn

QUANTISED = dict(type='mmkd.FakeQuant', bits=4)


@REGISTRY.register_module(name='HalfOfPSP')
class HalfOfPSP:
    """An edit that gives the plain network other shapes: a 1x1 bottleneck in the head."""

    claims = 'shapes'

    def __call__(self, model):
        conv = model.decode_head.bottleneck.conv
        model.decode_head.bottleneck.conv = nn.Conv2d(
            conv.in_channels, conv.out_channels, 1, bias=False
        )
        return model


@pytest.fixture(
    scope='module', params=[QUANTISED, dict(type='mmkd.HalfOfPSP')], ids=['baked', 'reshaped']
)
def trained(request, tmp_path_factory):
    """Folder and scores of the log of a segmentor that was trained with an edit."""
    folder = tmp_path_factory.mktemp('edits')
    model = dict(distilled('pspnet'), edits=[request.param])
    config = recipe('pspnet', folder / 'data', folder / 'run', model, iterations=3)
    config.train_cfg.val_interval = 3
    runner = build_runner(prepare(config))
    runner.train()
    hub = runner.message_hub.log_scalars
    scores = {k.removeprefix('val/'): hub[k].current() for k in ('val/mIoU', 'val/aAcc')}
    assert scores['aAcc'] > 0
    return folder, scores, request.param


def test_stock_tools_score_what_the_log_says(trained):
    folder, scores, entry = trained
    config = Config.fromfile(folder / 'run' / 'student.py')
    assert ('custom_imports' in config) == (entry is not QUANTISED)
    assert config.model.type == ('mmseg.EncoderDecoder' if entry is QUANTISED else 'mmkd.Edited')
    config.update(load_from=str(folder / 'run' / 'iter_3.pth'), work_dir=str(folder / 'stock'))
    config.experiment_name += '_stock'
    found = StockRunner.from_cfg(config).test()
    assert {key: found[key] for key in scores} == scores


def test_mmkd_scores_it_and_takes_it_as_a_teacher(trained, tmp_path):
    folder, scores, entry = trained
    path, file = str(folder / 'run' / 'student.py'), str(folder / 'run' / 'iter_3.pth')
    load_strictly(build_model(path), file)
    model = dict(distilled('pspnet'), edits=[entry])
    config = recipe('pspnet', folder / 'data', tmp_path, model)
    found = launch.test(copy.deepcopy(config), file)
    assert {key: found[key] for key in scores} == scores
    teacher = Teacher(config, file)
    bottleneck = teacher.model.decode_head.bottleneck.conv
    assert bottleneck.kernel_size == ((3, 3) if entry is QUANTISED else (1, 1))
    meta = torch.load(file, weights_only=False)['meta']
    assert meta['cfg'] == Config.fromfile(path).pretty_text or 'Edited' in meta['cfg']


def one_rank(rank):
    torch.manual_seed(0)
    edits = [dict(QUANTISED, rounding='stochastic', form='asymmetric')]
    teacher = Teacher(MODELS['frcnn'](width=8), checkpoint='random')
    objectives = dict(fgfi=dict(type='mmkd.FGFI'))
    student = tiny_faster_rcnn(4, num_classes=5)
    model = Distiller(student, objectives, teacher, preflight=False, edits=edits).train()
    return after_steps(model, uneven(rank))


def test_two_ranks_agree(tmp_path):
    first, second = of_two_ranks(one_rank, tmp_path)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
