"""What ``mmkd train`` and ``mmkd plan`` make of a chain."""

import pytest
from mmengine.config import Config

from mmkd import chain
from mmkd.commands import plan, train

STAGES = dict(a=dict(config='a.py'))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A folder with a chain and a plain config; what a Chain is built with, and run with."""
    monkeypatch.chdir(tmp_path)
    Config(dict(stages=STAGES)).dump('chain.py')
    Config(dict(stages=STAGES, epochs=3, train_cfg=dict(max_epochs=3))).dump('run.py')
    Config(dict(stages=STAGES, option=dict(x=1))).dump('slip.py')
    Config(dict(model=dict(type='x'))).dump('plain.py')
    seen = []

    class Chain:
        def __init__(self, stages, work_dir, seed, options, **others):
            seen.append((stages, work_dir, seed, options, others))

        def run(self, only, hooks, say):
            seen.append(only)

        def text(self):
            return 'the plans'

    monkeypatch.setattr(chain, 'Chain', Chain)
    return seen


def test_training(calls):
    train.main(['chain.py'])
    assert calls == [(STAGES, 'work_dirs/chain', None, {}, dict(launcher='none', amp=False)), None]


def test_training_with_all_arguments(calls):
    options = ['randomness.seed=2', 'options.train_cfg.max_epochs=3', 'stages.a.take=best']
    words = ['--only', 'a', '--amp', '--resume', '--work-dir', 'x', '--verbose']
    train.main(['chain.py', *words, '--cfg-options', *options])
    stages = dict(a=dict(config='a.py', take='best'))
    shared = dict(train_cfg=dict(max_epochs=3))
    assert calls == [(stages, 'x', 2, shared, dict(launcher='none', amp=True)), 'a']


def test_planning(calls, capsys):
    plan.main(['chain.py'])
    assert calls == [(STAGES, '', None, {}, dict(launcher='none', only_look=True))]
    assert capsys.readouterr().out == 'the plans\n'


@pytest.mark.parametrize(
    ('command', 'words', 'message'),
    [
        (train, ['chain.py', '--resume', 'a.pth'], '--resume a.pth: a chain finds by itself'),
        (train, ['plain.py', '--only', 'a'], '--only a is for chains; plain.py has no stages'),
        (train, ['chain.py', '--cfg-options', 'model.type=a'], 'has both stages and a model'),
        (train, ['chain.py', '--cfg-options', 'options=3'], 'options = 3 is no mapping'),
        (train, ['run.py'], "run.py has 'train_cfg', which a chain does not read. For all stages"),
        (plan, ['slip.py'], "slip.py has 'option'. Did you mean 'options'?"),
        (train, ['chain.py', '--teacher', 'a.py', 'b'], 'chain.py has no model to wrap'),
        (plan, ['chain.py', '--step'], '--step runs a batch of one config'),
        (plan, ['chain.py', '--suggest'], '--step runs a batch of one config'),
    ],
)
def test_arguments_that_are_for_one_run(calls, capsys, command, words, message):
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err and not calls
