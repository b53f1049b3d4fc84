"""Runs of a few steps with random augmentation, dropout and averages, that can be compared."""

import itertools
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from mmkd.engine.runner import Runner

SIZE, BATCH = 14, 2
ENDLESS = 'dataloader_iterator'  # where an iteration-based loop keeps its workers
EPOCH = SIZE // BATCH
# Random augmentation in persistent workers of the validation is not repeated.
VAL_WORKER = dict(num_workers=1, noise=False)
names = (f'resume_{i}' for i in itertools.count())


class Noisy(Dataset):
    """Random augmentation from all three generators."""

    def __init__(self, noise=True):
        self.noise = noise

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        noise = (np.random.rand() + random.random() + torch.rand(()).item()) * self.noise
        return dict(inputs=torch.full((3,), index / SIZE) + noise)


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, mode='tensor'):
        out = self.body(torch.stack(inputs))
        return dict(loss=(out**2).mean()) if mode == 'loss' else out.flatten().tolist()


class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))


class Record(Hook):
    """Losses and rates per iteration, metrics per validation."""

    priority = 'LOWEST'

    def __init__(self, kill_at=None):
        self.seen, self.metrics, self.kill_at = {}, {}, kill_at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        rate = runner.optim_wrapper.param_groups[0]['lr']
        self.seen[runner.iter] = (outputs['loss'].item(), rate, batch_idx)
        if runner.iter == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics[runner.iter] = metrics['mean']


class Run:
    """One finished run and everything that must be equal in another one."""

    def __init__(self, folder, runner=Runner, kill_at=None, before=None, **changes):
        self.hook = Record(kill_at)
        self.runner = runner(**arguments(folder, self.hook, **changes))
        if before:
            before(self.runner)
        self.runner.train()
        self.losses, self.metrics = self.hook.seen, self.hook.metrics
        self.weights = self.runner.model.state_dict()
        self.random = (random.random(), np.random.rand(), torch.rand(()).item())
        train, val = self.runner.train_loop, self.runner.val_loop
        for holder in (train.dataloader, val and val.dataloader, train.__dict__.get(ENDLESS)):
            if holder is not None:
                holder._iterator = None  # ends the workers

    def assert_continues(self, whole):
        assert self.losses, 'nothing was trained'
        assert self.losses == {i: whole.losses[i] for i in self.losses}
        assert max(self.losses) == max(whole.losses)
        assert self.metrics == {i: whole.metrics[i] for i in self.metrics}
        for key, value in whole.weights.items():
            assert torch.equal(self.weights[key], value), key
        assert self.random == whole.random


def loader(noise=True, **options):
    if options.get('num_workers') and 'persistent_workers' not in options:
        options['persistent_workers'] = True
    sampler = options.pop('sampler', dict(type='DefaultSampler', shuffle=True))
    return dict(dataset=Noisy(noise), batch_size=BATCH, sampler=sampler, **options)


def arguments(folder, hook, train=None, val=None, loop=None, save=None, hooks=(), **changes):
    loop = loop or dict(by_epoch=True, max_epochs=3)
    args = dict(
        model=dict(type=Net),
        work_dir=str(folder),
        train_dataloader=train() if callable(train) else loader(**(train or {})),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.05)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=12, by_epoch=False),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1) | (save or {}), logger=None
        ),
        custom_hooks=[hook, dict(type='EMAHook'), *hooks],
        randomness=dict(seed=3),
        log_level='ERROR',
        experiment_name=next(names),
    )
    if val is not None:
        metric = dict(type=Mean)
        args |= dict(val_dataloader=loader(**val), val_cfg=dict(), val_evaluator=metric)
    return args | changes


def train(*args, **kwargs):
    """Forget earlier runs' random states first: nothing may depend on them."""
    torch.manual_seed(random.SystemRandom().randrange(10**6))
    return Run(*args, **kwargs)


def endless(**options):
    return dict(sampler=dict(type='InfiniteSampler', shuffle=True), **options)


by_iter = dict(by_epoch=False)
iterations = dict(type='IterBasedTrainLoop', max_iters=13, val_interval=5)


def log_of_run(run):
    return next(Path(run.runner.log_dir).glob('*.log')).read_text()
