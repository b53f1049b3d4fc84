"""The smallest run there is: two linear features, four samples, three epochs."""

import itertools
import os
from pathlib import Path

import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from mmkd.engine.runner import Runner

names = (f'runner_{os.getpid()}_{i}' for i in itertools.count())


class Data(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((2,), float(index)))


class Net(BaseModel):
    def __init__(self, norm=nn.Identity, dropout=0.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), norm(2), nn.Dropout(dropout))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.body(torch.stack(inputs)) ** 2).mean())


def make(folder, kind=Runner, **changes):
    changes = dict(changes)
    save = changes.pop('save', {})
    cfg = dict(
        model=dict(type=Net),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Data(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1) | save, logger=None, timer=None
        ),
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=next(names),
    )
    return kind(**(cfg | changes))


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()
