"""What ``mmkd visualize`` hands on."""

from pathlib import Path

import pytest

from mmkd.commands import visualize
from mmkd.engine import launch
from mmkd.visualization import viewer


def test_pages_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text('x = 1\n')
    calls = []

    class Pages:
        def __init__(self, config, *given, point):
            calls.append((config.x, *given, point))

        def pages(self, indices, out):
            return [f'{out}/{index}.png' for index in indices]

    def check_data(config, split):
        print('creating index...\nindex created!')  # as pycocotools does
        calls.append(split)

    monkeypatch.setattr(viewer, 'Viewer', Pages)
    monkeypatch.setattr(launch, 'check_data', check_data)
    visualize.main(['a.py', '--split', 'val', '--indices', '4', '7', '--point', '3', '5.5'])
    assert calls == ['val', (1, 'val', None, (3.0, 5.5))], 'data are looked for first'
    assert capsys.readouterr().out.splitlines() == [
        'work_dirs/a/pages/4.png',
        'work_dirs/a/pages/7.png',
    ]


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text('x = 1\n')
    monkeypatch.setattr(viewer, 'Viewer', lambda *given, point: pytest.fail('it was built'))
    monkeypatch.setattr(launch, 'check_data', lambda config, split: None)
    with pytest.raises(SystemExit):
        visualize.main(['a.py', '--out', 'a.py'])
    assert '--out: nothing can be written into a.py' in capsys.readouterr().err
