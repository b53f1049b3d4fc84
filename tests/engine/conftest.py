"""What the tests of resumed runs share."""

import os
import shutil

import pytest
from resume_toys import train


@pytest.fixture
def quick(monkeypatch):
    """Nothing is waited for until it is on the disk."""
    monkeypatch.setattr(os, 'fsync', lambda file: None)


@pytest.fixture
def check(tmp_path, quick):
    """Train; then continue from some of its checkpoints elsewhere, and compare."""

    def run(*checkpoints, **changes):
        whole = train(tmp_path / 'whole', **changes)
        for checkpoint in checkpoints:
            folder = tmp_path / f'from_{checkpoint}'
            folder.mkdir()
            shutil.copy(tmp_path / 'whole' / checkpoint, folder)
            again = train(folder, resume=True, **changes)
            assert len(again.losses) < len(whole.losses)
            again.assert_continues(whole)
        return whole, again

    return run


@pytest.fixture
def chain(tmp_path, quick):
    """Train; continue from a checkpoint, and from one of that run, and so on; compare each."""

    def run(*checkpoints, **changes):
        whole = again = train(tmp_path / '0', **changes)
        for i, checkpoint in enumerate(checkpoints):
            folder = tmp_path / f'{i + 1}'
            folder.mkdir()
            shutil.copy(tmp_path / f'{i}' / checkpoint, folder)
            again = train(folder, resume=True, **changes)
            again.assert_continues(whole)
        return whole, again

    return run
