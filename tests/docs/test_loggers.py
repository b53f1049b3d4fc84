"""The config lines of docs/loggers.md send numbers to the back-ends, with stand-ins for their packages."""

import re
import sys
from types import ModuleType

import pytest
from messages import ROOT
from mmengine.config import Config
from mmengine.registry import VISUALIZERS

PAGE = (ROOT / 'docs' / 'loggers.md').read_text()


class Recorder:
    """TensorBoard's writer and the module wandb, as far as mmengine calls them."""

    def __init__(self, *args, **kwargs):
        self.numbers, self.started = {}, kwargs

    def add_scalar(self, name, value, step):
        self.numbers[name] = value

    def log(self, numbers, **kwargs):
        self.numbers.update(numbers)

    def init(self, **kwargs):
        self.started = kwargs

    def close(self):
        pass

    join = close


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    writer = ModuleType('torch.utils.tensorboard')
    writer.SummaryWriter = lambda *args: found
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', writer)
    monkeypatch.setitem(sys.modules, 'wandb', found)
    return found


def visualizer(backend, folder):
    """The visualizer of mmdet's configs, changed by the lines of the page that name ``backend``."""
    blocks = re.findall(r'^```python\n(.*?)^```$', PAGE, re.M | re.S)
    (lines,) = [block for block in blocks if backend in block]
    child = folder / 'my_config.py'
    child.write_text(f"_base_ = ['mmdet::_base_/default_runtime.py']\n{lines}")
    config = Config.fromfile(child).visualizer
    assert config.type == 'DetLocalVisualizer'
    config.update(type='Visualizer', save_dir=str(folder), name=folder.name)
    return VISUALIZERS.build(config)


@pytest.mark.parametrize('backend', ['TensorboardVisBackend', 'WandbVisBackend'])
def test_backend_gets_the_numbers(backend, recorder, tmp_path):
    numbers = {'loss': 2.0, 'kd.fgfi.loss': 0.5}
    visualizer(backend, tmp_path).add_scalars(numbers, step=3, file_path=str(tmp_path / 'log.json'))
    assert recorder.numbers == numbers
    assert (tmp_path / 'log.json').exists()  # LocalVisBackend is still there


def test_arguments_of_the_page_reach_wandb(recorder, tmp_path):
    visualizer('WandbVisBackend', tmp_path).add_scalars({'loss': 1.0}, step=1)
    assert recorder.started['project'] == 'distillation' and recorder.started['resume'] == 'allow'


def test_backends_named_on_the_page_exist():
    from mmengine.registry import VISBACKENDS

    named = set(re.findall(r'\w+VisBackend', PAGE))
    assert len(named) == 8
    assert not [name for name in named if VISBACKENDS.get(name) is None]
