"""Prune: the budget, the config that builds the result, bad input, a chain."""

import pytest
from chain_toys import recipe, run
from mmengine.config import Config
from mmengine.runner import Runner as StockRunner
from network_toys import made, saved

from mmkd.chain import build_maker
from mmkd.config import load_config
from mmkd.edits import same_outputs
from mmkd.makers.chosen_channels import products, uses_of
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet

MODELS = dict(cls=tiny_classifier(8), frcnn=tiny_faster_rcnn(8), pspnet=tiny_pspnet(8))


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Config, checkpoint and network of a classifier, a detector and a segmentor."""
    folder = tmp_path_factory.mktemp('sources')
    found = {}
    for name, entry in MODELS.items():
        scope = 'mmseg' if name == 'pspnet' else 'mmdet'
        found[name] = saved(Config(dict(default_scope=scope, model=entry)), folder, name)
    return found


def pruned(source, work_dir, **options):
    return made('Prune', source, work_dir, **options)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('mode', ['uniform', 'global'])
def test_the_budget_is_kept(name, mode, sources, tmp_path):
    source, whole = sources[name]
    product, model = pruned(source, tmp_path, macs=0.5, mode=mode)
    share = products(model, uses_of(model)) / products(whole, uses_of(whole))
    assert 0.3 < share <= 0.5
    config = load_config(product.config)
    assert config.custom_imports.imports == ['mmkd'] and config.model.type == 'mmkd.Edited'
    widths = {tuple(size) for size in config.model.edits[0].sizes.values()}
    assert len(widths) > 3


def test_nothing_to_drop_is_the_network_itself(sources, tmp_path):
    for options in (dict(ratio=0), dict(macs=1)):
        source, whole = sources['frcnn']
        product, model = pruned(source, tmp_path, **options)
        assert same_outputs(whole, model)[0] == 0
        assert load_config(product.config).model.type == MODELS['frcnn']['type']


def test_options_change_what_is_dropped(sources, tmp_path):
    source, whole = sources['frcnn']
    sizes = {}
    for name, options in dict(
        all={},
        backbone=dict(where='backbone'),
        inner=dict(where='inner'),
        skip=dict(skip=['backbone.layer4', 'neck']),
        round_to=dict(round_to=3),
        wide=dict(mode='global', limit=0.1),
        deep=dict(mode='global', limit=0.9),
    ).items():
        product, _ = pruned(source, tmp_path, ratio=0.45, **options)  # no stock widths
        sizes[name] = dict(load_config(product.config).model.edits[0].sizes)
    assert (
        sizes['all']['rpn_head.rpn_cls'] == [3, 9] and 'rpn_head.rpn_cls' not in sizes['backbone']
    )
    assert sizes['backbone']['neck.lateral_convs.0.conv'] == [16, 4]
    assert {name.rpartition('.')[2] for name in sizes['inner']} == {'conv1', 'bn1', 'conv2'}
    assert sizes['all']['backbone.conv1'] == [4, 3] and sizes['round_to']['backbone.conv1'] == [
        3,
        3,
    ]
    assert 'backbone.layer4.1.bn2' in sizes['all'] and 'backbone.layer4.1.bn2' not in sizes['skip']
    assert sizes['wide']['backbone.layer4.0.conv1'][0] >= 0.9 * 64 - 1
    assert sizes['wide'] != sizes['deep']


def test_inner_needs_no_torch_pruning(sources, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torch_pruning', None)
    pruned(sources['cls'][0], tmp_path, ratio=0.5, where='inner')
    with pytest.raises(ImportError, match=r'mmkd\[prune\]'):
        pruned(sources['cls'][0], tmp_path, ratio=0.5)


@pytest.mark.parametrize(
    'options, words',
    [
        ({}, 'give macs'),
        (dict(macs=0.5, ratio=0.5), 'give macs'),
        (dict(macs=0), 'macs must be'),
        (dict(ratio=1), 'ratio must be'),
        (dict(ratio=0.5, where='heads'), 'where must be'),
        (dict(ratio=0.5, skip=['nek']), "skip names 'nek'"),
        (dict(ratio=0.5, skip=['backbone', 'neck', 'rpn_head']), 'no channels of'),
        (dict(macs=0.01), 'stay with the fewest channels, more than macs=0.01'),
    ],
)
def test_bad_input(options, words, sources, tmp_path):
    with pytest.raises(ValueError, match=words):
        pruned(sources['frcnn'][0], tmp_path, **options)


def test_a_pruned_network_is_pruned_again(sources, tmp_path):
    """Both edits stand in one list, whose result is what the checkpoint fits."""
    once, _ = pruned(sources['cls'][0], tmp_path, ratio=0.3, where='inner')
    (tmp_path / 'again').mkdir()
    twice, model = pruned(once, tmp_path / 'again', ratio=0.3, where='inner')
    found = load_config(twice.config).model
    assert found.model.type == 'mmkd.Classifier' and len(found.edits) == 2
    assert [layer.weight.shape[0] for layer in (model.backbone.layer3[0].conv1,)] == [15]


def test_a_network_that_rounds_its_weights_is_refused(tmp_path):
    def prune(acts):
        edit = dict(type='mmkd.FakeQuant', bits=4, acts=acts)
        entry = dict(type='mmkd.Edited', model=tiny_classifier(8), edits=[edit])
        source, _ = saved(Config(dict(default_scope='mmdet', model=entry)), tmp_path, 'x')
        pruned(source, tmp_path, ratio=0.5, where='inner')

    with pytest.raises(ValueError, match='rounds the weight of backbone.conv1 when it is used'):
        prune(acts=8)
    prune(acts=None)  # whose weights carry all of the edit


def test_one_network(tmp_path):
    with pytest.raises(ValueError, match='Prune needs one network'):
        build_maker(dict(type='mmkd.Prune', ratio=0.5))({}, str(tmp_path))


def test_a_chain_distils_and_tunes_it(images, tmp_path):
    files = {}
    for name, options in dict(
        plain=dict(width=8), student=dict(width=8, teacher=dict(config='', checkpoint='random'))
    ).items():
        files[name] = str(tmp_path / f'{name}.py')
        recipe(images, **options).dump(files[name])
    stages = dict(
        teacher=dict(config=files['plain']),
        pruned=dict(make=dict(type='mmkd.Prune', macs=0.5), student='teacher'),
        distilled=dict(config=files['student'], teacher='teacher', student='pruned'),
        tuned=dict(config=files['plain'], student='distilled'),
    )
    _, products = run(stages, tmp_path / 'work')
    # mmengine's own Runner scores both as the log does.
    for stage, path in (
        ('distilled', str(tmp_path / 'work/distilled/student.py')),
        ('tuned', products['tuned'].config),
    ):
        stock = Config.fromfile(path)
        assert stock.custom_imports.imports == ['mmkd'] and stock.model.type == 'mmkd.Edited'
        load_strictly(build_model(path), products[stage].checkpoint)
        stock.update(load_from=products[stage].checkpoint, work_dir=str(tmp_path / 'stock'))
        stock.experiment_name = f'{stage}_stock'
        stock.update({f'test_{k}': stock[f'val_{k}'] for k in ('cfg', 'dataloader', 'evaluator')})
        assert StockRunner.from_cfg(stock).test() == products[stage].scores
