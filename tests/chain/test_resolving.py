"""From a stage to the config of its run."""

import pytest
from chain_toys import anyone, recipe
from mmengine.config import Config, ConfigDict

from mmkd.chain.resolving import (
    flat,
    network_of,
    read_config,
    set_file,
    set_teacher,
    settings_of,
    teacher_entry,
    teacher_places,
)
from mmkd.chain.stage import Stage
from mmkd.testing import tiny_classifier


def test_nested_options_are_dotted():
    nested = dict(a=dict(b=dict(c=1)), d=dict(_delete_=True, e=2), f={}, g=[1])
    assert flat(nested) == {'a.b.c': 1, 'd': dict(_delete_=True, e=2), 'f': {}, 'g': [1]}


def test_every_teacher_of_a_config_has_a_name():
    ensemble = dict(type='mmkd.Ensemble', members=dict(a=dict(config='a'), b=dict(config='b')))
    anchors = dict(type='mmkd.Anchors', folder='x')
    found = dict(teacher_places(dict(ens=ensemble, old=dict(config='c'), past=anchors)))
    assert list(found) == ['ens.members.a', 'ens.members.b', 'old', 'past']
    assert list(dict(teacher_places(dict(config='c')))) == ['']
    assert list(dict(teacher_places(ensemble))) == ['members.a', 'members.b']
    assert not dict(teacher_places(None))


def test_the_only_teacher_needs_no_name(images):
    config = recipe(images, teacher=anyone(8))
    stage = Stage('s', config='c.py')
    assert teacher_entry(config, stage, '') is teacher_entry(config, stage, 'teacher')
    config.model.teacher = None
    with pytest.raises(ValueError, match='these: none. Write a teacher into the config.'):
        teacher_entry(config, stage, '')


def test_a_teacher_that_reads_a_folder():
    past = dict(type='mmkd.Anchors', config='x', folder='y', at=[0, 0.5])
    set_teacher(past, 'c.py', 'w/t/epoch_2.pth', 'w/t')
    assert past == dict(type='mmkd.Anchors', config='c.py', folder='w/t', at=[0, 0.5])
    set_teacher(past, 'c.py', None, 'w/t')
    assert past == dict(config='c.py', checkpoint='random'), 'only to look at it'


def test_a_network_takes_the_place_of_the_one_that_is_written_there():
    entry = ConfigDict(config=dict(type='A', width=1), checkpoint='a.pth')
    network = ConfigDict(default_scope='mmdet', model=dict(type='B'))
    set_teacher(entry, network, 'b.pth', 'w/t')
    assert entry == dict(config=network, checkpoint='b.pth')


def test_a_network_is_a_path_where_the_config_says_all(images, paths):
    stage = Stage('s', config=paths['student'])
    config = read_config(stage, {}, 0)
    assert network_of(config, stage.config) == paths['student']
    config.model.student.backbone.base_channels = 7
    found = network_of(config, stage.config)
    assert found.model.backbone.base_channels == 7 and found.default_scope == 'mmengine'
    config.model.peers = dict(other=tiny_classifier(5), large='large.py')
    assert network_of(config, stage.config, 'peers.large') == 'large.py'
    assert network_of(config, stage.config, 'peers.other').model.backbone.base_channels == 5
    with pytest.raises(ValueError, match="has no peer 'third'. It has: other, large."):
        network_of(config, stage.config, 'peers.third')


def test_seeds(paths):
    assert read_config(Stage('s', config=paths['plain']), {}, 4).randomness.seed == 4
    own = Stage('s', config=paths['plain'], options={'randomness.seed': 7})
    assert read_config(own, {}, 4).randomness.seed == 7


def test_the_student_is_what_it_starts_from(paths):
    from mmkd.chain.stage import Reference

    options = {'load_from': 'somewhere.pth'}
    stage = Stage('s', config=paths['plain'], options=options, student=Reference('t'))
    assert read_config(stage, {}, 0).load_from is None


def test_files_set_a_key(paths):
    config = read_config(Stage('s', config=paths['student']), {}, 0)
    set_file(config, Stage('s'), 'model.teacher.weights', None)
    assert 'weights' not in config.model.teacher
    set_file(config, Stage('s'), 'model.teacher.weights', 'a.json')
    assert config.model.teacher.weights == 'a.json'


def test_files_set_a_key_of_an_entry_of_a_list(paths):
    config, stage = read_config(Stage('s', config=paths['student']), {}, 0), Stage('s')
    config.train_dataloader.parts = [dict(file='x'), dict(file='y')]
    set_file(config, stage, 'train_dataloader.parts.1.file', 'a.json')
    assert [p.file for p in config.train_dataloader.parts] == ['x', 'a.json']
    for key in ('train_dataloader.parts.2.file', 'train_dataloader.parts.z.file'):
        with pytest.raises(ValueError, match='no such place'):
            set_file(config, stage, key, 'a.json')


def test_settings_are_what_decides():
    config = dict(
        model=dict(type=Config, depth=(1, 2), preflight=False),
        work_dir='a',
        launcher='none',
        train_dataloader=dict(num_workers=3, batch_size=2),
        default_hooks=dict(logger=dict(interval=1), checkpoint=dict(interval=2)),
        resume=True,
        gone=None,
    )
    assert settings_of(Config(config)) == dict(
        default_hooks=dict(checkpoint=dict(interval=2)),
        model=dict(type='mmengine.config.config.Config', depth=[1, 2]),
        train_dataloader=dict(batch_size=2),
    )
