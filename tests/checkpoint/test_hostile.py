"""Every way into mmkd times every kind of hostile file: nothing runs, nothing outside changes."""

import copy
import shutil
import warnings
from collections import OrderedDict

import pytest
import torch
from hostile_files import HARMLESS, REFUSED, finished
from mmengine.config import ConfigDict
from mmengine.model import BaseModule, Sequential
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import Runner as MMRunner
from runner_toys import Net, make
from torch import nn

from mmkd.checkpoint import CheckpointError, dataset_meta_of, read_checkpoint
from mmkd.datasets.samplers import SuperClassUniformSampler
from mmkd.registry import MODELS
from mmkd.teacher import Teacher, load_strictly

EMA = dict(type='EMAHook')
SAVE_BEST = dict(save_best='score', rule='greater', max_keep_ckpts=1)
SEGMENTOR = dict(
    type='mmseg.EncoderDecoder',
    backbone=dict(
        type='mmseg.ResNet', depth=18, stem_channels=2, base_channels=2, out_indices=(3,)
    ),
    decode_head=dict(type='mmseg.FCNHead', in_channels=16, channels=2, num_classes=2, num_convs=1),
)


class Part(BaseModule):
    """A backbone, neck or head with weights of its own."""

    def __init__(self, path):
        super().__init__(dict(type='Pretrained', checkpoint=str(path)))
        self.body = nn.Sequential(nn.Linear(2, 2))


def with_prefix(path, folder):
    Sequential(
        nn.Linear(2, 2), init_cfg=dict(type='Pretrained', prefix='body', checkpoint=str(path))
    ).init_weights()


def run(path, folder, **changes):
    """Train from the file; what is saved then may replace older checkpoints."""
    make(folder, save=SAVE_BEST, load_from=str(path), **changes).train()


def automatic(path, folder):
    folder.mkdir()
    path.rename(folder / 'epoch_1.pth')
    runner = make(folder, save=SAVE_BEST, resume=True)
    if runner._resume_from is None:
        raise CheckpointError('stepped over')
    runner.train()


def stock_run(path, folder):
    """mmengine's own Runner, in a program that imports mmkd."""
    runner = make(folder, kind=MMRunner, load_from=str(path), resume=True)
    runner.load_or_resume()


def segmentor(path, folder):
    MODELS.build(ConfigDict(SEGMENTOR, pretrained=str(path))).init_weights()


ENTRIES = {
    'read_checkpoint': lambda path, folder: read_checkpoint(path),
    'mapped into memory': lambda path, folder: read_checkpoint(path, mmap=True),
    'teacher': lambda path, folder: Teacher(Net(), str(path)),
    'tools/test.py': lambda path, folder: load_strictly(Net(), str(path), who='test'),
    'load_from': run,
    '--resume FILE': lambda path, folder: run(path, folder, resume=True),
    '--resume': automatic,
    'EMA': lambda path, folder: run(path, folder, resume=True, custom_hooks=[EMA]),
    'stock Runner': stock_run,
    'pretrained part': lambda path, folder: Part(path).init_weights(),
    'prefix': with_prefix,
    'pretrained segmentor': segmentor,
    'CheckpointLoader': lambda path, folder: CheckpointLoader.load_checkpoint(str(path)),
    'load_checkpoint': lambda path, folder: load_checkpoint(Net(), str(path)),
    'embeddings': lambda path, folder: SuperClassUniformSampler(range(4), 2, str(path)),
}


#: entries that want another file than a checkpoint of the toy run
OTHER = ('embeddings', 'pretrained segmentor')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """One file of each kind, the marker of all of them, and files of somebody else."""
    folder = tmp_path_factory.mktemp('files')
    (folder / 'outside').mkdir()
    (folder / 'outside' / 'best_score_epoch_1.pth').write_text('precious')
    (folder / 'outside.pth').write_text('precious')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # TorchScript is old
        for kind, write in (REFUSED | HARMLESS).items():
            write(folder / f'{kind}.pth', folder / 'marker')
    return folder


@pytest.fixture
def attempt(files, tmp_path):
    """Call with an entry and a kind of file; fails if anything ran or changed outside."""

    def call(entry, kind):
        path = tmp_path / 'file.pth'
        shutil.copy(files / f'{kind}.pth', path)
        before = snapshot(files)
        try:
            ENTRIES[entry](path, tmp_path / 'run')
        finally:
            assert snapshot(files) == before

    return call


def snapshot(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob('*')}


@pytest.mark.parametrize('kind', REFUSED)
@pytest.mark.parametrize('entry', ENTRIES)
def test_files_that_would_run_something_are_refused(attempt, entry, kind):
    with pytest.raises(CheckpointError):
        attempt(entry, kind)


@pytest.mark.parametrize('kind', HARMLESS)
@pytest.mark.parametrize('entry', [name for name in ENTRIES if name not in OTHER])
def test_what_a_checkpoint_says_is_not_done(attempt, entry, kind):
    attempt(entry, kind)


@pytest.mark.parametrize('part', ['message_hub', 'optimizer', 'random_state'])
@pytest.mark.parametrize('value', [[], 'text', {'a': 1}], ids=str)
def test_odd_contents_are_one_sentence(tmp_path, part, value):
    torch.save(finished() | {part: value}, tmp_path / 'file.pth')
    with pytest.raises((CheckpointError, ValueError), match='resume|random states'):
        run(tmp_path / 'file.pth', tmp_path / 'run', resume=True)


def spoil(path, **changes):
    """Change what the checkpoint says of its generators."""
    checkpoint = finished() | dict(random_state=copy.deepcopy(finished()['random_state']))
    mine = checkpoint['random_state']['ranks'][0]
    for part, change in changes.items():
        mine[part].update(change)
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    'changes',
    [
        dict(main=dict(numpy_rest=(10**8, 0, 0.0))),  # NumPy would read there
        dict(main=dict(numpy_rest=(-1, 0, 0.0))),
        dict(main=dict(numpy_rest='text')),
        dict(main=dict(numpy=b'')),
        dict(data=dict(consumed=10**15)),  # which would be counted to
        dict(data=dict(workers={0: dict(numpy_rest=(10**8, 0, 0.0))})),
    ],
)
def test_generators_are_not_led_astray(tmp_path, changes):
    spoil(tmp_path / 'file.pth', **changes)
    with pytest.raises(CheckpointError, match='random states in the checkpoint are damaged'):
        run(tmp_path / 'file.pth', tmp_path / 'run', resume=True)


@pytest.mark.parametrize(
    'kind', ['zip', 'old format', 'zip, protocol 4', 'getattr', 'array of objects', 'module']
)
def test_these_files_do_run_something_where_nobody_looks(tmp_path, kind):
    """Else the matrix would prove nothing."""
    path, marker = tmp_path / 'file.pth', tmp_path / 'marker'
    REFUSED[kind](path, marker)
    torch.load(path, weights_only=False)
    assert marker.exists()


ODD_WEIGHTS = {
    'sparse': torch.eye(2).to_sparse(),
    'compressed': torch.eye(2).to_sparse_csr(),
    'quantised': torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8),
    'complex': torch.eye(2, dtype=torch.complex64),
}


@pytest.mark.parametrize('entry', ['teacher', 'tools/test.py', '--resume FILE'])
@pytest.mark.parametrize('kind', ODD_WEIGHTS)
def test_tensors_that_are_no_weights_do_not_fit(tmp_path, kind, entry):
    checkpoint = copy.deepcopy(finished())
    checkpoint['state_dict']['body.0.weight'] = ODD_WEIGHTS[kind]
    torch.save(checkpoint, tmp_path / 'file.pth')
    with pytest.raises(ValueError, match=r'1 of another shape: body\.0\.weight \(file \w+, model'):
        ENTRIES[entry](tmp_path / 'file.pth', tmp_path / 'run')


def test_weights_of_eight_bits_are_weights(tmp_path):
    state = {key: value.to(torch.float8_e4m3fn) for key, value in Net().state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'file.pth')
    for entry in ('teacher', 'load_from', 'load_checkpoint'):
        ENTRIES[entry](tmp_path / 'file.pth', tmp_path / 'run')


@pytest.mark.parametrize(
    'told',
    [[1], 'text', {1: 2}, *(dict(classes=c) for c in (3, [1, 2], 'text', {'a': 1}))],
    ids=str,
)
def test_odd_words_about_the_data_are_left_aside(tmp_path, told):
    torch.save(finished() | dict(meta=dict(dataset_meta=told)), tmp_path / 'file.pth')
    ENTRIES['teacher'](tmp_path / 'file.pth', tmp_path)
    assert dataset_meta_of(read_checkpoint(tmp_path / 'file.pth')) == {}


@pytest.mark.parametrize('told', [[1], 'text', {1: {}}, {'body': 7}, {'': {'version': 'x'}}])
def test_odd_versions_of_modules_are_left_aside(tmp_path, told):
    checkpoint = copy.deepcopy(finished())
    checkpoint['state_dict'] = OrderedDict(checkpoint['state_dict'])
    checkpoint['state_dict']._metadata = told
    torch.save(checkpoint, tmp_path / 'file.pth')
    for entry in ('teacher', 'load_checkpoint'):
        ENTRIES[entry](tmp_path / 'file.pth', tmp_path / 'run')


@pytest.mark.parametrize('seed', ['text', -5, 10**30, [1], 1.5], ids=str)
def test_an_odd_seed_is_one_sentence(tmp_path, seed):
    torch.save(finished() | dict(meta=finished()['meta'] | dict(seed=seed)), tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match='not what training writes .seed'):
        run(tmp_path / 'file.pth', tmp_path / 'run', resume=True)
