"""Makers in chains: what they are given, what is made of theirs, and what is refused."""

import random
import shutil

import numpy as np
import pytest
import torch
from chain_toys import run
from mmengine.config import Config

from mmkd.chain import Chain, Maker, Product, build_maker
from mmkd.chain.product import fingerprint, read_json, write_json
from mmkd.config import load_config
from mmkd.registry import MAKERS
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier

CALLS = []


@MAKERS.register_module()
class Halve(Maker):
    """A network of half the width, with weights of the seed 5."""

    def __init__(self, width: int = 4) -> None:
        self.width = width

    def __call__(self, given, work_dir):
        CALLS.append({role: product.checkpoint for role, product in given.items()})
        config = Config(dict(model=tiny_classifier(self.width), default_scope='mmengine'))
        config.dump(f'{work_dir}/student.py')
        torch.manual_seed(5)
        state = build_model(config).state_dict()
        torch.save(dict(state_dict=state, meta={}), f'{work_dir}/student.pth')
        return Product(f'{work_dir}/student.py', f'{work_dir}/student.pth', work_dir)


@pytest.fixture
def stages(paths):
    """A teacher of width 8, halved to 4; the configs of both students say 6."""
    return dict(
        teacher=dict(config=paths['teacher']),
        half=dict(make=dict(type='Halve'), student='teacher:epoch_1'),
        distilled=dict(config=paths['assistant'], teacher='teacher', student='half'),
        tuned=dict(config=paths['teacher'], student='distilled'),
    )


def test_the_network_of_a_maker_is_that_of_the_stages_behind_it(stages, tmp_path):
    CALLS.clear()
    said, products = run(stages, tmp_path)
    assert [dict(student=str(tmp_path / 'teacher' / 'epoch_1.pth'))] == CALLS
    for name in ('distilled', 'tuned'):
        model = load_config(products[name].config).model
        assert model.get('student', model).backbone.base_channels == 4
    assert 'student = half:last -> ' in said[2]
    assert said[6].split()[:2] == ['half', '-'], 'a maker has no score'
    run(stages, tmp_path)
    assert len(CALLS) == 1, 'what is made is not made again'
    stages['half']['make']['width'] = 2
    with pytest.raises(ValueError, match="stage 'half' .*: make.width is new, 2"):
        Chain(stages, str(tmp_path))


def test_the_plan_comes_when_the_network_is_made(stages, tmp_path):
    text = Chain(stages, str(tmp_path), only_look=True).text()
    assert text.count('its network is made by a stage before it') == 2


def test_a_teacher_from_a_maker(paths, images, tmp_path):
    stages = dict(
        half=dict(make=dict(type='mmkd.Halve', width=6)),
        student=dict(config=paths['student'], teacher='half'),
    )
    _, products = run(stages, tmp_path)
    used = load_config(products['student'].config).model.teacher
    assert used.config == str(tmp_path / 'half' / 'student.py')


@MAKERS.register_module()
class Fill(Maker):
    """A folder of images, as label maps are."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, given, work_dir):
        CALLS.append(given)
        shutil.copytree(self.source, f'{work_dir}/images', dirs_exist_ok=True)
        return Product('', f'{work_dir}/images', work_dir)


def test_a_folder_from_a_maker(paths, images, tmp_path):
    """As of PseudoLabels' label maps: the stages behind it read it, and it is not made again."""
    CALLS.clear()
    stages = dict(
        filled=dict(make=dict(type='Fill', source=str(images / 'train'))),
        plain=dict(
            config=paths['plain'], files={'train_dataloader.dataset.data_prefix.img_path': 'filled'}
        ),
    )
    options = {'train_dataloader.dataset.data_root': ''}
    _, products = run(stages, tmp_path, options=options)
    used = load_config(products['plain'].config).train_dataloader.dataset
    assert used.data_prefix.img_path == str(tmp_path / 'filled' / 'images')
    run(stages, tmp_path, options=options)
    assert len(CALLS) == 1, 'what is made is not made again'
    (tmp_path / 'filled' / 'images' / 'a' / '0.png').unlink()
    with pytest.raises(ValueError, match="stage 'plain' .*the file of files.train_.* is another"):
        Chain(stages, str(tmp_path), options=options)


@MAKERS.register_module()
class Strict(Maker):
    """Says which options it can work with when it has looked at what it is given."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, given, work_dir):
        if self.threshold > 0.5:
            raise ValueError('Lower threshold=.')
        write_json(f'{work_dir}/a.json', dict(threshold=self.threshold))
        return Product('', f'{work_dir}/a.json', work_dir)


def test_a_maker_that_failed_gets_other_options(tmp_path):
    """As its message says; the chain asked to delete the folder, and with it what was done."""
    stages = dict(a=dict(make=dict(type='Strict', threshold=0.8)))
    with pytest.raises(ValueError, match='Lower threshold'):
        run(stages, tmp_path)
    stages['a']['make']['threshold'] = 0.5
    _, products = run(stages, tmp_path)
    assert read_json(products['a'].checkpoint) == dict(threshold=0.5)


@MAKERS.register_module()
class Reads(Maker):
    """Takes configs, alone and in a mapping."""

    def __init__(self, config: str = '', members: dict | None = None) -> None:
        self.config, self.members = config, members

    def __call__(self, given, work_dir):
        write_json(f'{work_dir}/a.json', {})
        return Product('', f'{work_dir}/a.json', work_dir)


@pytest.mark.parametrize('nested', [False, True])
def test_a_maker_whose_config_was_edited_is_not_done(nested, tmp_path):
    base, config = tmp_path / 'base.py', tmp_path / 'c.py'
    base.write_text("model = dict(depth=4)\nlog_level = 'INFO'\n")
    config.write_text("_base_ = ['base.py']\n")
    options = dict(members=dict(a=dict(config=str(config)))) if nested else dict(config=str(config))
    stages = dict(a=dict(make=dict(type='Reads', **options)))
    run(stages, tmp_path / 'ta')
    base.write_text("model = dict(depth=4)\nlog_level = 'ERROR'\n")
    assert {*Chain(stages, str(tmp_path / 'ta')).links.products} == {'a'}, 'which decides nothing'
    base.write_text("model = dict(depth=6)\nlog_level = 'INFO'\n")
    key = r'configs\.members\.a\.config' if nested else r'configs\.config'
    with pytest.raises(ValueError, match=f"stage 'a' of another .*: {key}.model.depth 4 -> 6"):
        Chain(stages, str(tmp_path / 'ta'))


def test_a_marker_that_does_not_know_the_configs_is_kept(tmp_path):
    """Of an earlier version: nothing that is done is refused."""
    (tmp_path / 'c.py').write_text('model = dict(depth=4)\n')
    stages = dict(a=dict(make=dict(type='Reads', config=str(tmp_path / 'c.py'))))
    run(stages, tmp_path / 'ta')
    marker = read_json(str(tmp_path / 'ta' / 'a' / 'done.json'))
    assert marker['settings'].pop('configs')['config'] == dict(model=dict(depth=4))
    marker['fingerprint'] = fingerprint(marker['settings'], marker['inputs'])
    write_json(str(tmp_path / 'ta' / 'a' / 'done.json'), marker)
    assert {*Chain(stages, str(tmp_path / 'ta')).links.products} == {'a'}


@MAKERS.register_module()
class Needy(Maker):
    """Two arguments without a default."""

    def __init__(self, target: str, share: float, size: int = 1) -> None:
        self.given = target, share, size


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (dict(type='Needy', share=1), 'Maker Needy needs target; given: share. mmkd make takes'),
        (dict(type='Needy'), 'Maker Needy needs target, share; given: none.'),
        (dict(type='Halves'), "There is no maker 'Halves'. Did you mean 'Halve'"),
        (dict(width=3), "There is no maker ''"),
        (dict(type='Halve', widths=3), "Maker Halve has no option widths; it has .*'width'"),
    ],
)
def test_bad_makers(entry, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_maker(entry)
    with pytest.raises(ValueError, match=message):
        Chain(dict(a=dict(make=entry)), str(tmp_path / 'a'))


@MAKERS.register_module()
class Draw(Maker):
    """Random numbers of every kind, as transforms and initial weights draw them."""

    def __call__(self, given, work_dir):
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        path = f'{work_dir}/drawn.json'
        write_json(path, dict(drawn=drawn))
        return Product('', path, work_dir)


def test_a_maker_makes_the_same_every_time(tmp_path):
    """Also after a kill, when it begins again; the caller's random numbers go on."""
    found = []
    for name in ('first', 'second'):
        before = torch.get_rng_state()
        _, products = run(dict(drawn=dict(make=dict(type='Draw'))), tmp_path / name)
        assert torch.equal(before, torch.get_rng_state())
        found.append(read_json(products['drawn'].checkpoint))
        random.random(), np.random.rand(), torch.rand(())
    assert found[0] == found[1]


def test_a_maker_has_one_file(paths, tmp_path):
    stages = dict(a=dict(make=dict(type='Halve')), b=dict(config=paths['plain'], student='a:best'))
    with pytest.raises(
        ValueError, match="Stage 'b': 'a:best', but a maker has one file: write 'a'"
    ):
        Chain(stages, str(tmp_path / 'a'))
