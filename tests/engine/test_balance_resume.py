"""The state of a balance is in checkpoints, and a resumed run repeats the uninterrupted one."""

import pytest
import torch
from distiller_toys import Square, toy
from runner_toys import make
from torch.utils.data import Dataset

from mmkd.checkpoint import read_checkpoint
from mmkd.testing import class_labels, pixels


class Images(Dataset):
    """Four images, their classes, and nothing random."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        label = class_labels(torch.tensor([index % 3]))[0]
        return dict(inputs=pixels(1, (32, 32), seed=index)[0], data_samples=label)


def distiller(balance):
    return toy(dict(a=Square(), b=Square(student='head.fc')), balance=balance)


RATIO = dict(type='mmkd.GradientRatio', ratio=0.3, every=2, at='backbone')


def run(folder, balance=RATIO, **changes):
    loader = dict(dataset=Images(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True))
    runner = make(folder, model=distiller(balance), train_dataloader=loader, **changes)
    runner.train()
    return runner


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path):
    whole = run(tmp_path / 'whole')
    epochs = dict(by_epoch=True, max_epochs=1)
    run(tmp_path / 'cut', train_cfg=epochs)
    again = run(tmp_path / 'cut', resume=True)
    assert again.model.balance.shares == whole.model.balance.shares
    assert len({share.iteration for share in whole.model.balance.shares.values()}) == 1
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_what_a_checkpoint_holds(tmp_path):
    run(tmp_path / 'with')
    found = read_checkpoint(str(tmp_path / 'with' / 'epoch_3.pth'))
    assert found['teachers']['balance']['shares'].keys() == {'a', 'b'}
    assert not any('balance' in key for key in found['state_dict'])
    run(tmp_path / 'without', balance=None)
    assert 'teachers' not in read_checkpoint(str(tmp_path / 'without' / 'epoch_3.pth'))


def test_other_parts_are_refused_and_weights_alone_are_not(tmp_path):
    epochs = dict(by_epoch=True, max_epochs=1)
    run(tmp_path / 'with', train_cfg=epochs)
    with pytest.raises(ValueError, match='are balance in the checkpoint and none in this run'):
        run(tmp_path / 'with', balance=None, resume=True)
    run(tmp_path / 'without', balance=None, train_cfg=epochs)
    with pytest.raises(ValueError, match='are none in the checkpoint and balance in this run'):
        run(tmp_path / 'without', resume=True)
    loaded = run(tmp_path / 'new', load_from=str(tmp_path / 'with' / 'epoch_1.pth'))
    assert loaded.iter == 6
