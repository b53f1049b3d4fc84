"""Weights by what they are: released, last, best, the newest of a folder."""

import os

import pytest
import torch
from torch import nn

from mmkd.checkpoint import CheckpointError, newest_in, read_checkpoint, weights_of
from mmkd.config import default_work_dir
from mmkd.teacher import Teacher

STATE = dict(message_hub={}, state_dict={'weight': torch.ones(2, 2)})


def write(folder, name, epoch):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(STATE, meta=dict(epoch=epoch, iter=epoch)), folder / name)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A config, and what its run left in the default work dir."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'big.py').write_text("model = dict(type='Linear')\n")
    folder = tmp_path / 'work_dirs' / 'big'
    for epoch in (1, 2, 10):
        write(folder, f'epoch_{epoch}.pth', epoch)
    return folder


def test_last_is_the_newest_complete_one(run):
    assert weights_of('last', 'big.py').endswith('big/epoch_10.pth')
    (run / 'epoch_10.pth').write_bytes((run / 'epoch_10.pth').read_bytes()[:200])
    assert weights_of('last', 'big.py').endswith('big/epoch_2.pth')


def test_last_follows_the_work_dir_of_the_config(run, tmp_path):
    (tmp_path / 'big.py').write_text("work_dir = 'elsewhere'\n")
    write(tmp_path / 'elsewhere', 'iter_7.pth', 7)
    assert weights_of('last', 'big.py') == 'elsewhere/iter_7.pth'


def test_best_is_the_newest_of_the_best(run):
    with pytest.raises(CheckpointError, match=r'no complete best checkpoint.*save_best'):
        weights_of('best', 'big.py')
    for age, name in ((9, 'best_coco_bbox_mAP_epoch_1.pth'), (1, 'best_coco_bbox_mAP_epoch_2.pth')):
        write(run, name, 1)
        os.utime(run / name, (1e9 - age, 1e9 - age))
    assert weights_of('best', 'big.py').endswith('best_coco_bbox_mAP_epoch_2.pth')


def test_nothing_trained_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'big.py').write_text('')
    with pytest.raises(
        CheckpointError, match=r"'last' of big\.py: .*work_dirs/big.*Train it first"
    ):
        weights_of('last', 'big.py')
    with pytest.raises(
        CheckpointError, match='goes with the path of a config, but config is a dict'
    ):
        weights_of('last', {})
    assert weights_of('a.pth', {}) == 'a.pth'


def test_a_folder_is_its_newest_checkpoint(run):
    assert newest_in(str(run)).endswith('epoch_10.pth')
    assert read_checkpoint(run)['meta']['epoch'] == 10
    with pytest.raises(CheckpointError, match='there is no complete checkpoint in'):
        read_checkpoint(run.parent)


def test_teacher_says_which_file_it_took(run):
    with pytest.raises(CheckpointError, match="'last' goes with the path of a config"):
        Teacher(nn.Linear(2, 2, bias=False), 'last')
    teacher = Teacher(nn.Linear(2, 2, bias=False), str(run))
    assert teacher.loaded_keys == 1


def test_work_dir_of_a_config():
    assert default_work_dir('a/b/fgfi_x.py') == default_work_dir('mmkd::fgfi_x.py')
