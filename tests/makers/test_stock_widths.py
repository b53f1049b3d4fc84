"""Uniformly pruned networks come out as plain configs where stock modules have such widths."""

import json
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from network_toys import made, saved

from mmkd.config import load_config
from mmkd.makers.stock_widths import stock_model
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet, tiny_retinanet

MODELS = dict(
    cls=tiny_classifier(8),
    frcnn=tiny_faster_rcnn(8),
    retinanet=tiny_retinanet(8),
    pspnet=tiny_pspnet(8),
)


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
    """Each network pruned to half its widths: its config and itself."""
    found = {}
    for name, entry in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        scope = 'mmseg' if name == 'pspnet' else 'mmdet'
        source, _ = saved(Config(dict(default_scope=scope, model=entry)), folder, name)
        # The width of an FPN is what a head of RoIs reads; half of it inside is no option.
        skip = ['neck'] if name == 'frcnn' else []
        product, model = made('Prune', source, folder, ratio=0.5, skip=skip)
        found[name] = load_config(product.config), model, product
    return found


@pytest.mark.parametrize('name', MODELS)
def test_half_the_widths_are_a_plain_config(name, halves):
    config, model, _ = halves[name]
    assert config.model.type == MODELS[name]['type'] and 'custom_imports' not in config
    assert config.model.backbone.base_channels == MODELS[name]['backbone']['base_channels'] / 2
    shapes = {k: v.shape for k, v in build_model(config).state_dict().items()}
    assert shapes == {k: v.shape for k, v in model.state_dict().items()}


def test_what_is_wanted_is_the_config_of_half_the_width(halves):
    wanted = build_model(tiny_classifier(4)).state_dict()
    assert {k: v.shape for k, v in halves['cls'][1].state_dict().items()} == {
        k: v.shape for k, v in wanted.items()
    }


def test_stock_mmdet_loads_it_without_mmkd(halves):
    product = halves['frcnn'][2]
    # Without compiled operators mmdet loads, too, as long as none of them is called.
    code = (
        'import sys, json, importlib.util; from unittest.mock import MagicMock; '
        'compiled = importlib.util.find_spec("mmcv._ext"); '
        'sys.modules.update({} if compiled else {"mmcv._ext": MagicMock()}); '
        'import torch; from mmengine.config import Config; import mmdet.models; '
        'from mmdet.registry import MODELS; from mmengine.registry import init_default_scope; '
        "init_default_scope('mmdet'); config = Config.fromfile(sys.argv[1]); "
        'model = MODELS.build(config.model); '
        "state = torch.load(sys.argv[2], weights_only=True)['state_dict']; "
        'print(json.dumps([str(model.load_state_dict(state)), "mmkd" in sys.modules]))'
    )
    run = subprocess.run(
        [sys.executable, '-c', code, product.config, product.checkpoint],
        capture_output=True, text=True, check=False, cwd='/',
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == ['<All keys matched successfully>', False]


def test_what_options_cannot_say_keeps_its_edit(tmp_path):
    source, _ = saved(Config(dict(default_scope='mmdet', model=tiny_faster_rcnn(8))), tmp_path, 'x')
    for options in ({}, dict(skip=['backbone.layer4']), dict(mode='global'), dict(where='inner')):
        product, _ = made('Prune', source, tmp_path, ratio=0.5, **options)
        assert load_config(product.config).model.type == 'mmkd.Edited', options


def test_an_edited_network_or_odd_shapes_have_no_plain_config():
    config = Config(dict(model=tiny_classifier(8)))
    state = dict(build_model(tiny_classifier(8)).state_dict())
    assert stock_model(config, state, {8: 4}).backbone.base_channels == 8
    assert stock_model(config, dict(state, more=torch.zeros(1)), {8: 4}) is None
    edited = Config(dict(model=dict(type='mmkd.Edited', model=tiny_classifier(8), edits=[])))
    assert stock_model(edited, state, {8: 4}) is None
