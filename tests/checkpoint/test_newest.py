"""Which file of a work dir a run goes on from, whatever else lies there."""

import builtins
import os

import pytest
import torch

from mmkd.checkpoint import CheckpointError, atomic_file
from mmkd.checkpoint.newest import check_resumable, newest_checkpoint


def write(folder, name, iteration, weight=1.0, **changes):
    folder.mkdir(exist_ok=True)
    content = dict(
        meta=dict(epoch=iteration // 2, iter=iteration),
        message_hub=dict(),
        state_dict={'conv.weight': torch.full((2, 2), weight)},
    )
    torch.save(content | changes, folder / name)
    return str(folder / name)


@pytest.fixture
def run(tmp_path):
    """A work dir with two good checkpoints."""
    folder = tmp_path / 'run'
    write(folder, 'epoch_1.pth', 2)
    write(folder, 'epoch_2.pth', 4)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def found(folder):
    path, problems = newest_checkpoint(str(folder))
    return path and os.path.relpath(path, folder), problems


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'\xff\xfe\x00\x01garbage',
        b'a\0b',
        b'no such file',
        b'/etc/passwd\n',
        b'x' * 9000,
        b'.',
    ],
)
def test_garbage_in_last_checkpoint(run, content):
    (run / 'last_checkpoint').write_bytes(content)
    assert found(run)[0] == 'epoch_2.pth'


def test_last_checkpoint_that_is_a_directory(run):
    (run / 'last_checkpoint').unlink()
    (run / 'last_checkpoint').mkdir()
    assert found(run) == ('epoch_2.pth', [])
    with atomic_file(str(run / 'last_checkpoint')) as part:
        open(part, 'w').close()
    assert (run / 'last_checkpoint').is_file()
    assert len(list(run.glob('last_checkpoint.*.directory'))) == 1


def test_last_checkpoint_of_another_run(run, tmp_path):
    """Its folder was copied: the files beside it count, not those that the text names."""
    other = write(tmp_path / 'other', 'epoch_9.pth', 18)
    (run / 'last_checkpoint').write_text(other)
    assert found(run)[0] == 'epoch_2.pth'


def test_checkpoints_in_another_folder(run, tmp_path):
    """What out_dir asks for: the work dir holds nothing but the name of the last one."""
    empty = tmp_path / 'work'
    empty.mkdir()
    (empty / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
    assert found(empty)[0] == '../run/epoch_2.pth'
    (run / 'epoch_2.pth').write_bytes(b'PK cut off')
    path, problems = found(empty)
    assert path == '../run/epoch_1.pth' and 'truncated' in problems[0]


def test_names_of_the_user_s_own(tmp_path):
    write(tmp_path, 'step4.pth', 4)
    (tmp_path / 'last_checkpoint').write_text('/moved/from/here/step4.pth')
    assert found(tmp_path) == ('step4.pth', [])


def _directory(path):
    path.mkdir()
    (path / 'inside').touch()


@pytest.mark.parametrize(
    'spoil',
    [
        _directory,
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to('nowhere'),
        lambda path: path.symlink_to(path.name),
        lambda path: path.write_bytes(b'PK\x03\x04' + b'\0' * 50),
        lambda path: path.write_text('text'),
        lambda path: write(path.parent, path.name, 6, meta='epoch iter'),
        lambda path: write(path.parent, path.name, 6, meta=dict(epoch='3', iter=None)),
        lambda path: write(path.parent, path.name, 6, state_dict=None),
        lambda path: write(path.parent, path.name, 6, message_hub=[1]),
    ],
)
def test_what_cannot_be_used_is_stepped_over_and_named(run, spoil):
    spoil(run / 'epoch_3.pth')
    path, problems = found(run)
    assert path == 'epoch_2.pth'
    assert len(problems) == 1 and 'epoch_3.pth' in problems[0]


def test_unreadable_file(run, monkeypatch):
    write(run, 'epoch_3.pth', 6)
    stock = builtins.open

    def refuse(path, *args, **kwargs):  # root would read a file without permissions
        if str(path).endswith('epoch_3.pth'):
            raise PermissionError(13, 'Permission denied', str(path))
        return stock(path, *args, **kwargs)

    monkeypatch.setattr(builtins, 'open', refuse)
    path, problems = found(run)
    assert path == 'epoch_2.pth' and 'Permission denied' in problems[0]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_stepped_over(run, value):
    path = write(run, 'epoch_3.pth', 6, value)
    assert found(run)[0] == 'epoch_2.pth'
    assert found(run)[1] == [
        f'{path} holds NaN or infinity in conv.weight: the training that wrote it had failed. '
        'Take an earlier checkpoint.'
    ]
    with pytest.raises(CheckpointError, match=r'NaN or infinity in conv\.weight'):
        check_resumable(path, torch.load(path))


@pytest.mark.parametrize('several', [False, True])
def test_nan_in_the_state_of_an_optimiser_is_stepped_over(run, several):
    """Its first update would make every weight NaN."""
    state = dict(state={0: dict(step=torch.tensor(3.0), exp_avg=torch.full((2, 2), float('nan')))})
    write(run, 'epoch_3.pth', 6, optimizer=dict(student=state) if several else state)
    path, problems = newest_checkpoint(str(run))
    assert path == str(run / 'epoch_2.pth')
    assert 'NaN or infinity in optimizer.' in problems[0] and 'exp_avg' in problems[0]
    state['state'][0]['exp_avg'] = torch.full((2, 2), float('inf'))  # as of large gradients
    write(run, 'epoch_3.pth', 6, optimizer=state)
    assert newest_checkpoint(str(run)) == (str(run / 'epoch_3.pth'), [])


def test_an_optimiser_that_holds_itself_does_not_go_round(run):
    state = dict(state={})
    state['state'][0] = state
    write(run, 'epoch_3.pth', 6, optimizer=state)
    assert newest_checkpoint(str(run))[0] == str(run / 'epoch_3.pth')
