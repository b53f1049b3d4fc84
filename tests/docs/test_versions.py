"""The table of tested versions is written from results of tests; other rows and text stay."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = '<testsuites><testsuite errors="1" failures="2" skipped="0" tests="13" timestamp="{}"/></testsuites>'
FOUND = {
    'python': '3.12.1',
    'machine': 'Linux x86_64',
    'torch': 'torch 2.14.1',
    'mmcv operators': 'compiled; and more',
    'CUDA': '13.0: Some GPU',
}


@pytest.fixture(scope='module')
def versions():
    spec = importlib.util.spec_from_file_location('versions', ROOT / '.ci' / 'versions.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_row_says_what_was_found_and_what_failed(versions, tmp_path):
    file = tmp_path / 'tests.xml'
    file.write_text(SUITE.format('2026-11-26T10:00:00'))
    assert versions.result(file) == ('10 passed, 3 failed', '2026-11-26')
    cells = versions.row('newest', FOUND, '9 passed', '2026-11-26')
    assert cells[:3] == ['newest', '2.14.1', '3.12.1, Linux x86_64']
    assert cells[3:5] == ['compiled', 'Some GPU']
    without = FOUND | {'CUDA': 'none in use (torch built with no CUDA)'}
    assert versions.row('newest', without, '', '')[4] == 'CPU'


def test_a_row_is_replaced_by_the_one_of_its_name(versions, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{versions.START}{versions.END}\nafter\n')
    cells = [['pinned', *'abcdef'], ['newest', *'ghijkl']]
    assert versions.write(page, cells).count('\n') == 4
    versions.write(page, [['newest', *'mnopqr']])
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n')
    assert '| pinned | a | b |' in text
    assert '| newest | m | n |' in text and 'g' not in text.partition('| newest')[2].split('\n')[0]


def test_what_was_not_tested_keeps_its_row(versions, tmp_path, monkeypatch, capsys):
    page = tmp_path / 'page.md'
    page.write_text(f'{versions.START}{versions.END}')
    versions.write(page, [['newest', *'ghijkl']])
    monkeypatch.setattr(versions, 'PAGE', page)
    versions.main([f'newest={tmp_path}'])
    said = capsys.readouterr().out
    assert f'newest: not tested this time (no result of all tests in {tmp_path})' in said
    assert '| newest | g |' in page.read_text()
