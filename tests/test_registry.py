"""Registries of mmkd: any case, and the names of all packages."""

from mmengine.registry import HOOKS as ROOT_HOOKS

from mmkd.registry import HOOKS, MODELS, in_any_case, registered


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
