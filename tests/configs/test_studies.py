"""Every shipped study: short, and its rows are what its file says."""

import pytest
from test_configs import FOLDER

from mmkd.config import load_config
from mmkd.study import Study
from mmkd.study.pairing import rows_of

STUDIES = sorted(FOLDER.glob('studies/*.py'))


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 20 and lines[0].startswith('# ')


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_its_rows_differ_in_the_method_alone(path, tmp_path, monkeypatch):
    """No network is built: the configs are known to build, and names are wrapped as written."""
    monkeypatch.setattr('mmkd.study.pairing._networks', lambda pair: Fits())
    study = Study.read(load_config(str(path))._cfg_dict.to_dict())
    assert not study.options, 'nor a variable of that name'
    (found,) = rows_of(study, str(tmp_path), lambda row: None)
    noted = {row.name.partition(',')[0] for row in found.methods if row.notes}
    assert noted <= {'dist', 'fgd', 'mgd'}, (
        'published with clipped gradients, or the teacher as init'
    )
    assert found.plain and found.teacher
    assert bool(found.pair.checkpoint) == all(not row.learns_from for row in found.methods)
    if study.grid:
        assert len(found.methods) == 2 * len(study.methods)


class Fits:
    def fit(self, name):
        from mmkd.analysis.fits import MethodFit

        return MethodFit(name)

    def fits(self, names):
        return [self.fit('FGFI'), self.fit('PKD')]
