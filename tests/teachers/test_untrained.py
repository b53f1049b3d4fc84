"""Teachers that read files are planned without them."""

import pytest
from mmengine.config import ConfigDict

from mmkd.config import load_config
from mmkd.registry import MODELS
from mmkd.teachers.untrained import untrain


@pytest.mark.parametrize('name', ['kd_specialists', 'kd_rco', 'kd_ensemble', 'kd'])
def test_a_config_is_built_without_files(name):
    model = load_config(f'mmkd::small/{name}_cls_r14w16_r8w8_cifar10.py').model
    untrain(model)
    (teacher,) = MODELS.build(model).teachers.values()
    for part in teacher.parts().values():
        assert 'RANDOM' in part.loaded


def test_several_teachers_and_others_than_networks():
    entries = dict(a=dict(config='a.py', checkpoint='a.pth'), b=dict(type='mmkd.Momentum'))
    model = ConfigDict(teacher=entries)
    untrain(model)
    assert model.teacher == dict(a=dict(config='a.py', checkpoint='random'), b=entries['b'])
    plain = ConfigDict(type='x')
    untrain(plain)
    assert plain == dict(type='x')
