"""Registries of mmkd: any case, and the names of all packages."""

from mmengine.registry import HOOKS as ROOT_HOOKS

from mmkd.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    TRANSFORMS,
    Registry,
    in_any_case,
    registered,
)


def test_registries_find_names_in_any_case():
    assert MODELS.get('mmkd.fgfi') is MODELS.get('FGFI') is MODELS.get('mmkd.FGFI')
    assert HOOKS.get('mmkd.preflighthook') is HOOKS.get('mmkd.PreflightHook') is not None
    assert MODELS.get('mmkd.fgfj') is None


def test_hooks_of_all_packages_are_found_in_any_case():
    assert in_any_case(ROOT_HOOKS, 'loggerhook') == 'mmengine.LoggerHook'
    assert in_any_case(ROOT_HOOKS, 'mmkd.overheadhook') == 'mmkd.overheadhook', 'ours finds it'
    assert in_any_case(ROOT_HOOKS, 'LoggerHook') == 'LoggerHook'
    assert in_any_case(ROOT_HOOKS, 'NoHook') == 'NoHook'


def test_names_and_whose_they_are():
    scopes = registered('hook', 'mmengine')
    assert scopes['OverheadHook'] == 'mmkd' and scopes['LoggerHook'] == 'mmengine'
    assert registered('model', 'mmdet')['ResNet'] == 'mmdet'
    assert registered('model', 'mmseg')['ResNet'] == 'mmseg', 'asked for by scope'


def test_postponed_entries_are_imported_when_they_are_asked_for(monkeypatch):
    asked = []
    registry = Registry('thing', scope='mmkd')
    registry.postpone({'Late': 'some.where', 'Later': 'else.where'})

    def load(module):
        asked.append(module)
        registry.module_dict[{'some.where': 'Late', 'else.where': 'Later'}[module]] = module

    monkeypatch.setattr('mmkd.registry.import_module', load)
    assert registry.get('Early') is None and not asked
    assert registry.get('mmkd.Late') == registry.get('late') == 'some.where'
    assert asked == ['some.where']
    registry.import_postponed()
    assert asked == ['some.where', 'else.where']


def test_names_that_are_postponed_are_known():
    assert registered('dataset', 'mmengine')['CamVidDataset'] == 'mmkd'
    assert in_any_case(DATASETS, 'mmkd.bccddataset') == 'mmkd.bccddataset', 'ours finds it'
    assert DATASETS.get('mmkd.BCCDDataset').__module__ == 'mmkd.datasets.bccd'
    assert TRANSFORMS.get('mmkd.LoadLabelMap').__module__ == 'mmkd.datasets.label_maps'
