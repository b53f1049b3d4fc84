"""Whole chains: roles, skipping, resuming after kills, and nothing that leaks between stages."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from chain_toys import anyone, die, equal, in_child, recipe, run, three, weights, write
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

from mmkd.chain import Chain, chain
from mmkd.config import load_config
from mmkd.engine.launch import train
from mmkd.testing import tiny_classifier


@pytest.fixture(scope='module')
def whole(paths, tmp_path_factory):
    """A chain of three stages that nobody killed: folder, lines, products."""
    folder = tmp_path_factory.mktemp('whole') / 'ta'
    return folder, *run(three(paths), folder)


def test_every_stage_hands_on_its_last_checkpoint(whole, paths):
    folder, said, products = whole
    assert list(products) == ['teacher', 'assistant', 'student']
    for name, product in products.items():
        assert product.checkpoint == str(folder / name / 'epoch_2.pth')
        assert Path(product.config).is_file()
        assert set(product.scores) == {'top1'}
    used = load_config(products['student'].config).model.teacher
    assert used.checkpoint == products['assistant'].checkpoint
    assert used.config == paths['assistant']


def test_the_console_has_a_line_for_each_stage_and_a_table(whole, paths):
    folder, said, _ = whole
    assert said[0] == 'stage 1/3 teacher: started'
    assert said[1].startswith('stage 2/3 assistant: started; teacher = teacher:last -> ')
    assert said[1].endswith('teacher/epoch_2.pth')
    assert said[3].split() == ['stage', 'score', 'seconds', 'checkpoint']
    assert [line.split()[0] for line in said[4:]] == ['teacher', 'assistant', 'student']
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*.pth')}
    again, _ = run(three(paths), folder)
    assert [line.split(': ')[1] for line in again[:3]] == 3 * ['done already']
    assert again[3:] == said[3:]
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob('*.pth')}


def test_one_stage_is_the_command_train_of_its_config(paths, tmp_path):
    run(dict(only=dict(config=paths['plain'])), tmp_path / 'chain', seed=3)
    config = load_config(paths['plain'])
    config.randomness = dict(seed=3)
    train(config, work_dir=str(tmp_path / 'alone'))
    chained = weights(tmp_path / 'chain' / 'only' / 'epoch_2.pth')
    assert equal(chained, weights(tmp_path / 'alone' / 'epoch_2.pth'))


def test_teacher_and_student_are_the_config_of_the_method(whole, paths, tmp_path):
    """A chain [T, S] is KD from T's checkpoint, bit for bit."""
    folder, *_ = whole
    config = load_config(paths['assistant'])
    config.randomness = dict(seed=0)
    config.model.teacher = dict(
        config=paths['teacher'], checkpoint=str(folder / 'teacher' / 'epoch_2.pth')
    )
    train(config, work_dir=str(tmp_path / 'alone'))
    assert equal(
        weights(folder / 'assistant' / 'epoch_2.pth'), weights(tmp_path / 'alone' / 'epoch_2.pth')
    )


class KillAt(Hook):
    """SIGKILL after a step of a stage, before its checkpoint if it has one."""

    priority = 'HIGHEST'

    def __init__(self, stage, step):
        self.stage, self.step = stage, step

    def after_train_iter(self, runner, *args, **kwargs):
        if Path(runner.work_dir).name == self.stage and runner.iter == self.step:
            die()


def killed_before(name, stage):
    """Let the process die when it is about to write a marker."""

    def patch(monkeypatch, module):
        stock = module.write_json

        def write_json(path, content):
            if Path(path).name == name and Path(path).parent.name == stage:
                die()
            stock(path, content)

        monkeypatch.setattr(module, 'write_json', write_json)

    return patch


@pytest.mark.parametrize(
    'kills',
    [
        [('step', 'teacher', 1), ('step', 'teacher', 4)],
        [('marker', 'teacher'), ('started', 'assistant')],
        [('progress', 'assistant'), ('step', 'assistant', 5)],
        [('step', 'assistant', 3), ('marker', 'assistant')],
    ],
    ids=lambda kills: '+'.join(f'{where}-{stage}' for where, stage, *_ in kills),
)
def test_a_killed_chain_ends_with_the_weights_of_an_uncut_one(
    kills, whole, paths, tmp_path, monkeypatch
):
    folder, stages = whole[0], three(paths)
    del stages['student']
    files = dict(
        marker=('done.json', 'mmkd.chain.chain'),
        started=('started.json', 'mmkd.chain.folders'),
        progress=('progress.json', 'mmkd.chain.progress'),
    )

    def go(where=None, stage=None, step=None):
        torch.manual_seed(len(kills))  # nothing may depend on what a process starts with
        hooks = [KillAt(stage, step)] if where == 'step' else []
        if where in files:
            name, module = files[where]
            killed_before(name, stage)(monkeypatch, __import__(module, fromlist=['']))
        Chain(stages, str(tmp_path / 'ta')).run(hooks=lambda config: hooks, say=str)

    for kill in kills:
        assert in_child(lambda kill=kill: go(*kill)) == -9
    assert in_child(go) == 0
    for name in stages:
        cut = weights(tmp_path / 'ta' / name / 'epoch_2.pth')
        assert equal(cut, weights(folder / name / 'epoch_2.pth')), name
        markers = [
            json.loads((f / name / 'done.json').read_text()) for f in (tmp_path / 'ta', folder)
        ]
        assert markers[0]['product']['scores'] == markers[1]['product']['scores']
        assert markers[0]['fingerprint'] == markers[1]['fingerprint']


def test_what_objectives_learned_carries_on(images, paths, tmp_path):
    """Two phases of FT: the paraphraser is that of the first, the student begins anew."""
    own = write(
        tmp_path,
        images,
        words=dict(
            teacher=anyone(8),
            objectives=dict(ft=dict(type='mmkd.FT', phase='paraphraser', weight=1)),
        ),
        student=dict(teacher=anyone(8), objectives=dict(ft=dict(type='mmkd.FT'))),
    )
    stages = dict(
        teacher=dict(config=paths['teacher']),
        words=dict(config=own['words'], teacher='teacher'),
        student=dict(config=own['student'], teacher='teacher', objectives='words'),
        tuned=dict(config=paths['plain'], student='student:epoch_1'),
    )
    started = {}

    class Look(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            state = runner.model.state_dict()
            started[Path(runner.work_dir).name] = {k: v.clone() for k, v in state.items()}

    products = Chain(stages, str(tmp_path / 'ft')).run(hooks=lambda config: [Look()], say=str)
    before, after = weights(products['words'].checkpoint), weights(products['student'].checkpoint)
    shared = [key for key in before if 'paraphraser' in key]
    assert shared and all(torch.equal(after[key], before[key]) for key in shared)
    fresh = {k: v for k, v in started['words'].items() if not k.startswith('objectives.')}
    assert all(torch.equal(started['student'][key], value) for key, value in fresh.items())
    first = weights(tmp_path / 'ft' / 'student' / 'epoch_1.pth')
    assert all(torch.equal(v, first[k]) for k, v in started['tuned'].items())
    assert not equal(started['tuned'], weights(products['tuned'].checkpoint))


def test_a_peer_of_one_stage_teaches_and_starts_another(images, paths, tmp_path):
    mutual = dict(
        down=dict(type='mmkd.KD', teacher_name='other'),
        up=dict(type='mmkd.KD', learner='other', teacher_name='student'),
    )
    config = recipe(images, width=4, objectives=mutual)
    config.model.peers = dict(other=tiny_classifier(6))
    config.dump(str(tmp_path / 'mutual.py'))
    stages = dict(
        both=dict(config=str(tmp_path / 'mutual.py')),
        student=dict(config=paths['student'], teacher='both/peers.other'),
        tuned=dict(config=paths['plain'], student='both:epoch_1'),
    )
    said, products = run(stages, tmp_path / 'work')
    assert said[1].startswith('stage 2/3 student: started; teacher = both:last/peers.other -> ')
    used = load_config(products['student'].config).model.teacher
    assert used.checkpoint.endswith('epoch_2_peers.other.pth')
    assert used.config.model.backbone.base_channels == 6
    own = weights(products['both'].checkpoint)
    assert equal(weights(used.checkpoint), {k[12:]: v for k, v in own.items() if k[:6] == 'peers.'})
    stages['tuned']['student'] = 'both/peers.other'
    with pytest.raises(ValueError, match="cannot start from 'both:last/peers.other', which is ano"):
        Chain(stages, str(tmp_path / 'other'))


def test_only_runs_one_stage_whose_inputs_are_done(whole, paths, tmp_path):
    folder, _, products = whole
    own = tmp_path / 'ta'
    shutil.copytree(folder, own)
    shutil.rmtree(own / 'student')
    said = []
    Chain(three(paths), str(own)).run(only='student', say=said.append)
    assert said[0].startswith('stage 3/3 student: started; teacher = assistant:last -> ')
    assert equal(weights(own / 'student' / 'epoch_2.pth'), weights(products['student'].checkpoint))
    shutil.rmtree(own)
    empty = Chain(three(paths), str(own))
    with pytest.raises(ValueError, match='--only student: it takes from assistant, not done in'):
        empty.run(only='student')
    with pytest.raises(ValueError, match='--only pupil: stages are teacher, assistant, student'):
        empty.run(only='pupil')


def test_a_moved_folder_is_still_done(whole, paths, tmp_path):
    shutil.copytree(whole[0], tmp_path / 'moved')
    said, products = run(three(paths), tmp_path / 'moved')
    assert all('done already' in line for line in said[:3])
    assert products['student'].checkpoint == str(tmp_path / 'moved' / 'student' / 'epoch_2.pth')


def test_nothing_leaks_from_a_stage(paths, images, tmp_path):
    """cudnn's flags, random states, scopes and hubs are those of before; a stage alone is equal."""
    loud = recipe(images, width=8, randomness=dict(seed=5, deterministic=True))
    loud.env_cfg = dict(cudnn_benchmark=True)
    loud.default_scope = 'mmdet'
    for part in ('train_dataloader', 'val_dataloader'):
        for transform in loud[part].dataset.pipeline:
            transform.type = transform.type.replace('RandomFlip', 'mmcv.RandomFlip')
    loud.dump(str(tmp_path / 'loud.py'))
    stages = dict(loud=dict(config=str(tmp_path / 'loud.py')), plain=dict(config=paths['plain']))
    flags = torch.backends.cudnn
    before = flags.benchmark, flags.deterministic, torch.are_deterministic_algorithms_enabled()
    kinds = (DefaultScope, MessageHub)
    named = [set(kind._instance_dict) for kind in kinds]
    seen = []

    class Look(Hook):
        def before_run(self, runner):
            seen.append((flags.benchmark, flags.deterministic, runner.default_scope.scope_name))

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    Chain(stages, str(tmp_path / 'two')).run(hooks=lambda config: [Look()], say=str)
    drawn = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    assert drawn == (torch.rand(()), random.random(), np.random.rand())
    assert seen == [(False, True, 'mmdet'), (before[0], before[1], 'mmengine')]
    assert before == (
        flags.benchmark,
        flags.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )
    assert named == [set(kind._instance_dict) for kind in kinds]
    run(dict(plain=dict(config=paths['plain'])), tmp_path / 'one')
    both = [weights(tmp_path / name / 'plain' / 'epoch_2.pth') for name in ('one', 'two')]
    assert equal(*both)


def test_options_of_all_stages_and_of_one(paths, tmp_path):
    stages = three(paths)
    stages['student']['options'] = {'optim_wrapper.optimizer.lr': 0.2}
    shared = dict(train_cfg=dict(max_epochs=5), optim_wrapper=dict(optimizer=dict(lr=0.1)))
    configs = Chain(stages, str(tmp_path), options=shared).links.configs
    assert [c.train_cfg.max_epochs for c in configs.values()] == [5, 5, 5]
    assert [c.optim_wrapper.optimizer.lr for c in configs.values()] == [0.1, 0.1, 0.2]
    assert {c.randomness.seed for c in configs.values()} == {0}
    with pytest.raises(
        ValueError, match=r'train_cfg\.max_epoch: .* Did you mean train_cfg\.max_epochs'
    ):
        Chain(stages, str(tmp_path), options={'train_cfg.max_epoch': 1})


def test_the_plan_of_a_chain(paths, tmp_path):
    text = Chain(three(paths), str(tmp_path), only_look=True).text()
    blocks = text.split('\n\n')
    assert len(blocks) == 3 and blocks[0].startswith('stage 1/3 teacher: ')
    assert '\n  teacher = assistant:last\n' in blocks[2]
    assert 'objective kd: KD, weight 0.9' in blocks[2]
    for block, source in zip(
        blocks[1:], ('stage teacher:last', 'stage assistant:last'), strict=True
    ):
        assert f'weights of {source}\n' in block and 'RANDOM WEIGHTS' not in block
    assert not list(tmp_path.iterdir())


def test_a_stage_that_writes_no_checkpoint(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(chain, 'train', lambda *args, **options: None)
    with pytest.raises(ValueError, match="Stage 'plain' has written no checkpoint into"):
        run(dict(plain=dict(config=paths['plain'])), tmp_path)
