"""Stock configs distilled on the fly: the config, and its text as a file."""

import pytest
from mmengine.config import Config

from mmkd.config import load_config
from mmkd.engine.wrapping import wrap_stock
from mmkd.registry import MODELS
from mmkd.testing import tiny_retinanet


@pytest.fixture
def plain(tmp_path):
    """Paths of a plain student's and a teacher's config."""
    paths = []
    for name, width in (('student', 4), ('teacher', 8)):
        config = Config(dict(default_scope='mmdet', model=tiny_retinanet(width)))
        config.dump(tmp_path / f'{name}.py')
        paths.append(str(tmp_path / f'{name}.py'))
    return paths


def test_a_stock_config_is_wrapped_and_its_text_is_equivalent(plain, tmp_path):
    student, teacher = plain
    config, text = wrap_stock(student, teacher, 'random', 'FGFI')
    (tmp_path / 'written.py').write_text(text)
    written = load_config(str(tmp_path / 'written.py'))
    assert written.model.to_dict() == Config(dict(model=config.model)).model.to_dict()
    assert len(text.splitlines()) <= 20
    distiller = MODELS.build(written.model)
    assert list(distiller.objectives) == ['fgfi']
    assert distiller.teachers['teacher'].model.neck.fpn_convs[0].conv.out_channels == 16


def test_wrapping_names_methods_with_or_without_scope(plain):
    for method in ('CWD', 'mmkd.CWD'):
        config, _ = wrap_stock(*plain, 'random', method)
        assert config.model.objectives == dict(cwd=dict(type='mmkd.CWD'))
    with pytest.raises(ValueError, match='--method Banana: unknown. Known methods: .*FGFI'):
        wrap_stock(*plain, 'random', 'Banana')
    with pytest.raises(ValueError, match='distils already'):
        wrap_stock('mmkd::fgfi_frcnn_r101_r50.py', plain[1], 'random', 'FGFI')


def test_relative_paths_still_hold_in_the_work_dir(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, text = wrap_stock('student.py', 'teacher.py', 'best.pth', 'CWD')
    for name in ('student.py', 'teacher.py', 'best.pth'):
        assert repr(str(tmp_path / name)) in text


def test_modules_that_a_stock_config_imports_stay_imported(plain, tmp_path):
    with open(plain[0], 'a') as file:
        file.write("\ncustom_imports = dict(imports=['json'], allow_failed_imports=False)\n")
    _, text = wrap_stock(*plain, 'random', 'FGFI')
    (tmp_path / 'written.py').write_text(text)
    imports = load_config(str(tmp_path / 'written.py')).custom_imports
    assert imports == dict(imports=['json', 'mmkd'], allow_failed_imports=False)
