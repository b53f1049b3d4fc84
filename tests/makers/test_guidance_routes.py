"""The search for routes as a stage: its winner is what the student trains with."""

import json

import pytest
from chain_toys import anyone, run, write

from mmkd.analysis import routes
from mmkd.chain import Chain
from mmkd.commands import make
from mmkd.config import load_config
from mmkd.makers import guidance_routes, networks

GUIDE = dict(guidance=dict(type='mmkd.GuidanceRoute'))


@pytest.fixture
def own(images, tmp_path):
    return write(tmp_path, images, guided=dict(teacher=anyone(8), objectives=GUIDE))['guided']


def stages(paths, own):
    return dict(
        teacher=dict(config=paths['teacher']),
        search=dict(
            make=dict(type='mmkd.GuidanceRoutes', config=own, hold_out=0.5), teacher='teacher'
        ),
        student=dict(
            config=own,
            teacher='teacher',
            files={'model.objectives.guidance.routes': 'search'},
        ),
    )


def test_a_searched_route(paths, own, tmp_path):
    said, products = run(stages(paths, own), tmp_path / 'work')
    found = json.loads((tmp_path / 'work' / 'search' / 'routes.json').read_text())
    assert len(found['rounds'][0]) == 3
    assert said[1].startswith('stage 2/3 search: started; teacher = teacher:last -> ')
    assert 'files.model.objectives.guidance.routes = search:last -> ' in said[2]
    used = load_config(products['student'].config).model.objectives.guidance
    assert used.routes == products['search'].checkpoint
    chain = Chain(stages(paths, own), str(tmp_path / 'work'))
    assert set(chain.links.products) == {'teacher', 'search', 'student'}


def test_the_search_gets_the_teacher_of_the_chain(own, paths, tmp_path, monkeypatch):
    seen = []

    class Found:
        def as_dict(self):
            return dict(winner=[1, 1])

    def search(config, work_dir, *settings, progress):
        seen.append((config.model.teacher.checkpoint, config.train_cfg.max_epochs, settings))
        return Found()

    monkeypatch.setattr(guidance_routes, 'search_routes', search)
    words = ['GuidanceRoutes', f'config={own}', 'epochs=2', 'options.train_cfg.max_epochs=7']
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.touch()
    out = tmp_path / 'out'
    make.main([*words, '--out', str(out), '--teacher', paths['teacher'], str(checkpoint)])
    assert seen == [(str(checkpoint), 7, (2, 0.1, None, 'joint', None))]
    assert json.loads((out / 'routes.json').read_text()) == dict(winner=[1, 1])
    assert routes.search_routes is not search


def test_one_process_only(own, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, 'get_world_size', lambda: 2)
    with pytest.raises(ValueError, match='GuidanceRoutes trains in one process, .* launched in 2'):
        guidance_routes.GuidanceRoutes(own)({}, str(tmp_path))
