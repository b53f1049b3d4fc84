"""One set of images and configs for all tests of chains."""

import pytest
from chain_toys import anyone, write, write_images
from mmengine.runner import runner as mm_runner


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(mm_runner, 'collect_env', dict)


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    return root


@pytest.fixture(scope='session')
def paths(images, tmp_path_factory):
    """Configs by name: a teacher of width 8, an assistant of 6, students of 4."""
    return write(
        tmp_path_factory.mktemp('configs'),
        images,
        teacher=dict(width=8),
        plain=dict(width=4),
        assistant=dict(width=6, teacher=anyone(8)),
        student=dict(width=4, teacher=anyone(6)),
    )
