"""Runs of a few steps of a tiny classifier with any teacher, that can be compared and resumed."""

import itertools
import os
import shutil

import torch
from mmengine.hooks import Hook
from torch.utils.data import Dataset

from mmkd.engine.runner import Runner
from mmkd.structures import ClassSample
from mmkd.testing import tiny_classifier

SIZE, BATCH, STEPS = 12, 4, 8
names = (f'teachers_{os.getpid()}_{i}' for i in itertools.count())


class Images(Dataset):
    """Small random images of three classes, each with a path."""

    metainfo = dict(classes=('red', 'green', 'blue'))

    def __init__(self, shift=0):
        self.shift = shift

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index + self.shift)
        image = torch.randint(0, 256, (3, 16, 16), generator=draw, dtype=torch.uint8)
        image[index % 3] //= 2
        sample = ClassSample(metainfo=dict(img_path=f'data/{index}.png', img_shape=(16, 16)))
        return dict(inputs=image, data_samples=sample.set_gt_label(index % 3))


class Watch(Hook):
    """Losses of every step, and what the teachers were like after it."""

    priority = 'LOWEST'

    def __init__(self, look=None):
        self.losses, self.seen, self.look = {}, {}, look

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = {k: float(v.detach()) for k, v in outputs.items()}
        if self.look:
            model = getattr(runner.model, 'module', runner.model)
            self.seen[runner.iter] = self.look(model)


def student(**changes):
    return tiny_classifier(width=4, **changes)


def make(folder, teacher=None, objectives=None, look=None, distils=True, **changes):
    watch = Watch(look)
    model = dict(
        type='mmkd.Distiller',
        student=student(),
        teacher=teacher,
        objectives=dict(kd=dict(type='mmkd.KD')) if objectives is None else objectives,
        preflight=False,
    )
    save = dict(type='CheckpointHook', interval=1, by_epoch=False) | changes.pop('save', {})
    steps = changes.pop('steps', STEPS)
    cfg = dict(
        model=model if distils else student(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images(), batch_size=BATCH, sampler=dict(type='InfiniteSampler', shuffle=True)
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        default_hooks=dict(checkpoint=save, logger=None, timer=None),
        custom_hooks=[watch, *changes.pop('hooks', [])],
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=next(names),
    )
    runner = Runner(**(cfg | changes))
    runner.watch = watch
    return runner


def train(*args, **kwargs):
    runner = make(*args, **kwargs)
    runner.train()
    return runner


def assert_same(one, other):
    """Two runs, plain or distilled, end with the same student."""
    first, second = (getattr(r.model, 'student', r.model).state_dict() for r in (one, other))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def check_resumes(tmp_path, at, look=None, **options):
    """A run that continues from the checkpoint of step ``at`` ends as the one that did not stop."""
    whole = train(tmp_path / 'whole', look=look, **options)
    folder = tmp_path / 'again'
    folder.mkdir()
    shutil.copy(tmp_path / 'whole' / f'iter_{at}.pth', folder)
    torch.manual_seed(99)
    again = train(folder, look=look, resume=True, **options)
    assert list(again.watch.losses) == list(whole.watch.losses)[at:]
    assert again.watch.losses == {i: whole.watch.losses[i] for i in again.watch.losses}
    assert_same(whole, again)
    return whole, again
