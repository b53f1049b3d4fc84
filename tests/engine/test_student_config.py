"""The plain student's config, and its place in checkpoints."""

from types import SimpleNamespace

from mmengine.config import Config
from mmengine.hooks import EMAHook

from mmkd.config import distils
from mmkd.engine.student_config import StudentConfigHook, student_config


def distillation(**entries):
    model = dict(type='mmkd.Distiller', student=dict(type='RetinaNet'), teacher=dict(config='x.py'))
    return Config(dict(model=model, **entries))


def test_hooks_that_the_tools_add_are_not_the_students():
    ours = dict(type='mmkd.PreflightHook')
    config = distillation(
        custom_hooks=[ours, dict(type='EMAHook')], custom_imports=dict(imports=['mmkd', 'json'])
    )
    plain = student_config(config)
    assert plain.model == dict(type='RetinaNet')
    assert plain.custom_hooks == [dict(type='EMAHook')]
    assert plain.custom_imports == dict(imports=['json'])
    config.custom_hooks, config.custom_imports = [ours], dict(imports=['mmkd'])
    plain = student_config(config)
    assert 'custom_hooks' not in plain and 'custom_imports' not in plain
    assert distils(config.model), 'the original is as it was'


def test_hooks_may_be_objects():
    config = distillation(custom_hooks=[EMAHook(), dict(type='mmkd.OverheadHook')])
    (kept,) = student_config(config).custom_hooks
    assert type(kept) is EMAHook


def test_a_plain_config_is_copied():
    config = Config(dict(model=dict(type='RetinaNet'), custom_hooks=[dict(type='EMAHook')]))
    plain = student_config(config)
    assert plain.to_dict() == config.to_dict() and plain is not config


def checkpoint_of(config):
    found = dict(
        meta=dict(cfg=config.pretty_text),
        message_hub=dict(runtime_info=dict(cfg=config.pretty_text, iter=3)),
    )
    StudentConfigHook().before_save_checkpoint(SimpleNamespace(cfg=config), found)
    return found


def test_a_checkpoint_says_how_to_build_the_student_and_how_it_was_distilled():
    config = distillation(work_dir='x')
    found = checkpoint_of(config)
    meta, info = found['meta'], found['message_hub']['runtime_info']
    assert meta['cfg'] == info['cfg'] == student_config(config).pretty_text
    assert Config.fromstring(meta['cfg'], '.py').model == dict(type='RetinaNet')
    assert meta['distillation_cfg'] == config.pretty_text and info['iter'] == 3


def test_a_checkpoint_of_a_plain_run_stays_as_it_is():
    config = Config(dict(model=dict(type='RetinaNet')))
    assert checkpoint_of(config)['meta'] == dict(cfg=config.pretty_text)


def test_an_edited_model_keeps_what_its_weights_do_not_carry():
    quantised, exits = dict(type='mmkd.FakeQuant', bits=4), dict(type='mmkd.Exits')
    own = dict(type='mmkd.Classifier', num_classes=3)

    def of(*edits):
        model = dict(type='mmkd.Edited', model=own, edits=list(edits))
        return student_config(Config(dict(model=model)))

    assert of(quantised).model == own and 'custom_imports' not in of(quantised)
    assert of(quantised, exits).model.edits == [exits]
    assert of(exits).custom_imports.imports == ['mmkd']
