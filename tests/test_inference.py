"""Who builds a model."""

from importlib import import_module

import pytest
from mmengine.infer import BaseInferencer

from mmkd.inference import PREDICTORS, for_prediction


def caller(module, name):
    """A function of that module and name that asks, through one more call."""
    space = dict(__name__=module, for_prediction=for_prediction)
    exec(f'def {name}():\n    return (lambda: for_prediction())()', space)
    return space[name]


@pytest.mark.parametrize(('module', 'name'), sorted(PREDICTORS))
def test_functions_that_only_predict_are_seen(module, name):
    assert caller(module, name)()
    assert hasattr(import_module(module), name) or name == '_init_model', 'it is there'


@pytest.mark.parametrize(
    ('module', 'name'),
    [('mmdet.apis.inference', 'other'), ('mmdet.apis', 'init_detector'), ('own', 'init_model')],
)
def test_others_are_not(module, name):
    assert not caller(module, name)()


def test_inferencers_have_that_method():
    assert callable(BaseInferencer._init_model)
