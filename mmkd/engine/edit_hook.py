"""Edited students: what is deployed is in the weights of a checkpoint, what trains is beside it."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from mmkd.adapters.fake_quant import bake, latent_modules
from mmkd.borrowed import unwrapped
from mmkd.checkpoint.edit_record import EditRecord
from mmkd.edits import made_in
from mmkd.engine.settings import plain
from mmkd.engine.student_config import student_config, write_config
from mmkd.registry import HOOKS

#: in the work dir of a run
STUDENT = 'student.py'


@HOOKS.register_module()
class EditHook(Hook):
    """Writes weights as the plain student computes with them, and ``student.py``, which builds it.

    :class:`mmkd.Runner` registers it by itself. ``checkpoint['edits']`` holds the edits and, by
    their names, the parameters that differ from what is deployed; a resumed run takes them back,
    ``load_from`` starts from the weights that are deployed.
    """

    priority = 'LOW'  # behind EMAHook, which puts the averages among the weights

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        if not _entries(model):
            return
        for _, module in latent_modules(model) if not runner._resume else ():
            module.begin()
        if is_main_process() and isinstance(runner.cfg.get('model'), Mapping):
            write_config(student_config(runner.cfg), osp.join(runner.work_dir, STUDENT))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model, state = unwrapped(runner.model), checkpoint['state_dict']
        entries = _entries(model)
        if not entries:
            return
        baked = bake(model, state)
        if 'optimizer' in checkpoint:  # a file without it is resumed by nobody
            EditRecord(entries, {key: state[key] for key in baked}).write(checkpoint)
        state.update(baked)


def _entries(model: nn.Module) -> list[Any]:
    """The edits of every network that learns, as plain values."""
    networks = {'student': model} | dict(getattr(model, 'peers', None) or {})
    return [
        [name, plain(made.entry, lambda key, value: False)]
        for name, network in networks.items()
        for made in made_in(network)
    ]


def take_back(model: nn.Module, checkpoint: dict) -> None:
    """Put the parameters that train where a resumed checkpoint has what is deployed.

    Raises:
        ValueError: the run that wrote it had other edits.
    """
    found, wanted = EditRecord.read(checkpoint), EditRecord(_entries(model))
    if found.entries != wanted.entries:
        raise ValueError(
            f'cannot resume: edits are {found.told()} in the checkpoint and {wanted.told()} in '
            'this run. Resume with the same edits, or take the weights alone: load_from without '
            'resume.'
        )
    state = checkpoint['state_dict']
    state.update({key: x for key, x in found.latent.items() if key in state})


def tell_baked(checkpoint: Mapping, source: str) -> None:
    """Say that a run starts from weights as they are deployed."""
    if (saved := EditRecord.read(checkpoint)).latent:
        print_log(
            f'load_from {source}: it is of a student with edits ({saved.told()}); '
            'training starts from the weights that are deployed, not from the unrounded ones.',
            logger='current',
        )
