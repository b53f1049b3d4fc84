"""Every shipped chain: short, in order, and its stages fit each other."""

import pytest
from test_configs import FOLDER

from mmkd.chain import Chain
from mmkd.chain.checks import check_kept
from mmkd.chain.resolving import read_config
from mmkd.chain.stage import read_stages
from mmkd.config import load_config

CHAINS = sorted(FOLDER.glob('chains/*.py'))
#: their models are small as they are
SMALL = [path for path in CHAINS if 'mmkd::small/' in path.read_text()]


@pytest.mark.parametrize('path', CHAINS, ids=lambda path: path.stem)
def test_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 20 and lines[0].startswith('# ')


@pytest.mark.parametrize('path', CHAINS, ids=lambda path: path.stem)
def test_its_references_can_be_kept(path):
    stages = read_stages(load_config(str(path)).stages)
    configs = {name: read_config(one, {}, 0) for name, one in stages.items() if one.config}
    for stage in stages.values():
        for reference in stage.references().values():
            source = stages[reference.stage]
            if source.config:
                check_kept(stage, reference, configs[source.name], source)


@pytest.mark.parametrize('path', SMALL, ids=lambda path: path.stem)
def test_its_stages_fit(path):
    chain = Chain(load_config(str(path)).stages, '', only_look=True)
    stages = chain.links.stages.items()
    known = {name for name, one in stages if one.config and not chain.links.waits(name)}
    assert set(chain.facts) == known
