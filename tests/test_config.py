"""Configs: where they come from, and stock ones wrapped on the fly."""

import mmengine.config.utils as mm_utils
import pytest
from mmengine.config import Config

from mmkd.config import (
    _remembered,
    calm_dataset,
    dataset_leaves,
    load_config,
    model_of,
    resolve,
)
from mmkd.engine.wrapping import wrap_stock
from mmkd.teacher import build_model
from mmkd.testing import tiny_pspnet, tiny_retinanet


@pytest.fixture
def plain(tmp_path):
    """Paths of a plain student's and a teacher's config."""
    paths = []
    for name, width in (('student', 4), ('teacher', 8)):
        config = Config(dict(default_scope='mmdet', model=tiny_retinanet(width)))
        config.dump(tmp_path / f'{name}.py')
        paths.append(str(tmp_path / f'{name}.py'))
    return paths


def test_a_base_of_mmkd_from_a_foreign_folder(tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(
        "_base_ = ['mmkd::fgfi_frcnn_r101_r50.py']\n"
        'model = dict(\n'
        "    teacher=dict(checkpoint='random'),\n"
        "    objectives=dict(fgfi=dict(psi=0.3), cwd=dict(type='mmkd.CWD')),\n)\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config('mine.py')
    assert config.model.objectives.fgfi == dict(type='mmkd.FGFI', weight=dict(start=400), psi=0.3)
    assert set(config.model.objectives) == {'fgfi', 'cwd'}
    assert config.default_scope == 'mmdet' and config.train_dataloader.dataset.type == 'CocoDataset'


def test_the_file_of_a_scoped_path_is_found_without_metafiles(monkeypatch):
    path = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    wanted = load_config(path).pretty_text
    monkeypatch.setattr(mm_utils, '_get_cfg_metainfo', lambda *names: pytest.fail('they were read'))
    assert load_config(path).pretty_text == wanted
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match='no-such'):
        load_config('mmdet::retinanet/no-such.py')


def test_scoped_paths():
    for path in (
        'mmkd::cwd_pspnet_r101_r18.py',
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    ):
        assert load_config(path).model


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('nowhere.py', "Config 'nowhere.py' does not exist \\(looked in /"),
        ('mmkd::nowhere.py', "'nowhere.py'. All are in configs"),
        ('mmdet::retinanet/nowhere.py', 'does not exist in mmdet'),
        ('mmbanana::a.py', "package 'mmbanana' is not installed"),
    ],
)
def test_what_is_not_there_is_named(path, message):
    with pytest.raises(FileNotFoundError, match=message):
        resolve(path)


def test_models_are_built_from_files_mappings_and_distillation_configs(plain):
    path, _ = plain
    for source in (path, load_config(path), load_config(path).model, dict(load_config(path).model)):
        assert type(build_model(source)).__name__ == 'RetinaNet'
    distilled = dict(type='mmkd.Distiller', student=tiny_pspnet(4), objectives={})
    assert (
        type(build_model(dict(model=distilled, default_scope='mmseg'))).__name__ == 'EncoderDecoder'
    )


def test_what_a_distillers_config_lacks_is_looked_up_in_its_students(plain):
    config, _ = wrap_stock(*plain, 'random', 'FGFI')
    assert config.model.backbone is config.model.student.backbone
    assert config.model.teacher.checkpoint == 'random' and 'backbone' not in config.model
    with pytest.raises(AttributeError, match='banana'):
        config.model.banana  # noqa: B018
    with pytest.raises(AttributeError, match='student'):
        Config(dict(model=dict(type='RetinaNet'))).model.student  # noqa: B018


def test_a_text_is_formatted_once(monkeypatch):
    """Runner asks for the same text three times."""
    from yapf.yapflib import yapf_api

    counted = []

    def format_code(text, **options):
        counted.append(text)
        return stock(text, **options)

    config = Config(dict(model=dict(type='A', depth=3), hooks=[dict(type='B')]))
    wanted = config.pretty_text
    stock = yapf_api.FormatCode.__wrapped__
    monkeypatch.setattr(yapf_api, 'FormatCode', _remembered(format_code))
    for _ in range(3):
        assert config.pretty_text == wanted
    assert len(counted) == 1
    config.model.depth = 4
    result = config.pretty_text
    assert 'depth=4' in result and len(counted) == 2
    for number in range(5):  # as many are not kept
        Config(dict(a=number)).pretty_text  # noqa: B018
    assert config.pretty_text == result and len(counted) == 8


def test_a_text_that_cannot_be_formatted_is_refused_each_time():
    def format_code(text):
        raise SyntaxError('odd')

    remembered = _remembered(format_code)
    for _ in range(2):
        with pytest.raises(SyntaxError, match='odd'):
            remembered('=')


def test_the_model_of_a_config():
    model = tiny_retinanet(4)
    assert model_of(model) is model and model_of(dict(model=model)) is model
    assert model_of(Config(dict(model=model))).type == model['type']


@pytest.mark.parametrize(
    ('config', 'found'),
    [
        (3, '3'),
        (dict(config='a.py', checkpoint='x'), r'dict\(config=…, checkpoint=…\)'),
        (dict(model='a.py'), "'a.py'"),
        (Config(dict(work_dir='x')), r'dict\(work_dir=…\)'),
    ],
)
def test_what_is_no_model(config, found):
    with pytest.raises(TypeError, match=f'a model must be the path of a config, .* found {found}'):
        build_model(config)


IMAGES = dict(type='mmkd.ClassFolders', data_root='x', pipeline=[dict(type='mmkd.RandomCrop')])


def test_datasets_inside_wrappers():
    inner = dict(IMAGES, data_root='y')
    repeated = dict(type='RepeatDataset', times=2, dataset=inner)
    both = dict(type='ConcatDataset', datasets=[IMAGES, repeated])
    found = list(dataset_leaves(both))
    assert found[0] is IMAGES and found[1] is inner and len(found) == 2
    assert list(dataset_leaves(IMAGES)) == [IMAGES]


def test_training_images_with_the_pipeline_of_the_validation():
    pack = [dict(type='mmkd.PackClassInputs')]
    wrapped = dict(type='RepeatDataset', times=2, dataset=IMAGES)
    val = dict(type='RepeatDataset', times=1, dataset=dict(IMAGES, pipeline=pack))
    config = dict(train_dataloader=dict(dataset=wrapped), val_dataloader=dict(dataset=val))
    found = calm_dataset(config, test_mode=True)
    assert found == dict(wrapped, dataset=dict(IMAGES, pipeline=pack, test_mode=True))
    assert IMAGES['pipeline'] == [dict(type='mmkd.RandomCrop')]
    for missing in config:
        assert calm_dataset({**config, missing: None}) is None
    assert calm_dataset(dict(config, val_dataloader=dict(dataset=dict(type='x')))) is None
