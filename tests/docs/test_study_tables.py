"""Tables of kept studies in docs/results.md."""

import json
import sys

import pytest
from messages import ROOT

sys.path.insert(0, str(ROOT / 'docs'))
import study_tables  # noqa: E402

RECORD = dict(
    command='mmkd study s.py',
    date='2026-11-27',
    device='a CPU',
    jobs=2,
    versions=dict(mmkd='0.1', torch='2'),
    seeds=[0, 1],
    rows=[
        dict(
            row='plain', status='done', metric='AP', seed_0='30', seed_1='40', mean='35', std='7.07'
        ),
        dict(
            row='A|B',
            status='failed: out of luck',
            metric='AP',
            seed_1='46',
            mean='46',
            gain='6',
            share_of_gap='0.3',
            step_x_plain='1.5',
            command='mmkd train a.py',
        ),
        dict(row='C', status='refused: no boxes', metric='AP'),
    ],
)


def test_a_study_is_kept_and_shown(tmp_path):
    folder = tmp_path / 'studies'
    with pytest.raises(FileNotFoundError, match='that has ended'):
        study_tables.keep(tmp_path, 'X', folder)
    (tmp_path / 'report.json').write_text(json.dumps(RECORD))
    path = study_tables.keep(tmp_path, 'CIFAR-10, 12 epochs', folder)
    assert path.name == 'cifar_10_12_epochs.json'
    shown = study_tables.study_tables(study_tables.read_studies(folder)).splitlines()
    for line in (
        '### CIFAR-10, 12 epochs',
        '2026-11-27, a CPU, 2 runs at a time; mmkd 0.1, torch 2. 2 seeds, last checkpoint.',
        'mmkd study s.py',
        '| plain | 30.0 / 40.0 | 35.0 ± 7.1 |  |  |  |  |  |',
        '| A\\|B | 46.0 (failed: out of luck) | 46.0 | **+6.0** | 30 % | 1.50 |  |  |',
        '| C | refused: no boxes |  |  |  |  |  |  |',
        'mmkd train a.py',
    ):
        assert line in shown, f'{line}\n{shown}'
    assert study_tables.study_tables([]) == 'None is kept yet.'
