"""The student in the config of a Distiller, and its edits."""

import pytest
from mmengine.config import Config
from torch import nn

from mmkd.edits import FakeQuant
from mmkd.students import (
    build_edit,
    deployed,
    import_edits,
    in_weights,
    is_edited,
    known_edits,
    name_of,
    student_of,
)
from mmkd.testing import tiny_classifier

QUANTISED = dict(type='mmkd.FakeQuant', bits=4)
EXITS = dict(type='mmkd.Exits')


def test_edits_that_the_weights_carry_are_left_out():
    model = dict(student=tiny_classifier(4), edits=[QUANTISED])
    assert student_of(model) is model['student']
    assert student_of(dict(student=model['student'])) is model['student']
    found = student_of(dict(model, edits=[QUANTISED, EXITS]))
    assert is_edited(found) and found.edits == [EXITS] and found.model == model['student']
    assert deployed(dict(model, type='mmkd.Distiller')) is deployed(model['student'])
    assert deployed(model['student']) is model['student']
    assert not is_edited(model) and not is_edited('mmkd.Edited')


def test_a_config_of_an_edited_model_imports_mmkd():
    config = Config(dict(model=dict(type='mmkd.Edited', model={}, edits=[])))
    config.custom_imports = dict(imports=['mine', 'mmkd'])
    import_edits(config)
    assert config.custom_imports.imports == ['mmkd', 'mine']
    plain = Config(dict(model=dict(type='mmkd.Classifier')))
    import_edits(plain)
    assert 'custom_imports' not in plain


def test_an_edit_from_its_entry():
    edit = build_edit(dict(type='mmkd.fakequant', BITS=3))
    assert isinstance(edit, FakeQuant) and edit.bits == 3
    assert name_of(edit) == 'FakeQuant' and in_weights(edit)

    def own(model):
        return model

    assert build_edit(own) is own and name_of(own) == 'own' and not in_weights(own)
    assert {'Exits', 'FakeQuant', 'QuantiseMap'} <= {*known_edits()}
    assert not {'Edited', 'AnytimeClassifier'} & {*known_edits()}


@pytest.mark.parametrize(
    ('entry', 'kind', 'message'),
    [
        (dict(type='mmkd.FakeQuand'), ValueError, "Edits of mmkd: .* Did you mean 'FakeQuant'"),
        (dict(type='mmkd.Classifier'), TypeError, 'is no edit. An edit takes a network'),
        (nn.Identity(), TypeError, 'is no edit'),
        ('mmkd.FakeQuant', TypeError, 'is no edit'),
        (dict(QUANTISED, bit=3), TypeError, "no option bit; .* Did you mean 'bits'"),
    ],
)
def test_no_edit(entry, kind, message):
    with pytest.raises(kind, match=message):
        build_edit(entry)
