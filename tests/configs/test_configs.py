"""Every shipped config: short, parses, builds, taps resolve, and its name is true."""

import re
from os.path import commonprefix
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmkd.checkpoint.released import released_weights
from mmkd.config import load_config
from mmkd.methods import names
from mmkd.plan import Plan
from mmkd.registry import MODELS
from mmkd.teacher import build_model
from mmkd.teachers import Anchors, VisionModel, is_teacher, kind_of
from mmkd.testing import shrink

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted([*FOLDER.glob('*.py'), *FOLDER.glob('small/*.py')])
DISTILLED = [path for path in CONFIGS if 'mmkd.Distiller' in path.read_text()]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_is_short_and_flat(path):
    assert len(path.read_text().splitlines()) <= 20


def file_of(kind):
    return MODELS.get(f'mmkd.{kind}').__module__.rpartition('.')[2].replace('_', '')


@pytest.mark.parametrize('path', DISTILLED, ids=lambda path: path.stem)
def test_builds_and_its_name_is_true(path, tmp_path):
    config = load_config(str(path))
    init_default_scope(config.default_scope)
    model = config.model
    kinds = [entry.type.removeprefix('mmkd.') for entry in model.objectives.values()]
    assert set(kinds) <= set(names())
    stem = path.stem.replace('_', '')
    # The name of a method or its file, or what the names of several have in common.
    known = {kind.lower() for kind in kinds} | {file_of(kind) for kind in kinds} | {'demo'}
    if balance := model.get('balance'):
        kind = balance.type if isinstance(balance, dict) and 'type' in balance else 'GradientRatio'
        known |= {'balance', file_of(kind.removeprefix('mmkd.'))}
    known |= {commonprefix(sorted(known - {'demo'}))} - {''}
    peers = set(model.get('peers') or {})
    known |= {'dml'} if peers else set()  # deep mutual learning
    assert stem.startswith(tuple(known))
    teacher = model.get('teacher')
    listen = [
        e for e in model.objectives.values() if e.get('teacher_name') not in [*peers, 'student']
    ]
    needed = [MODELS.get(entry.type).needs_teacher for entry in listen]
    assert bool(teacher) == any(needed)
    if teacher:
        prepare(model, tmp_path)
    elif path.parent == FOLDER:
        model.student = small(model.student)
    with torch.no_grad():
        distiller = MODELS.build(model)
    assert isinstance(distiller.plan, Plan)
    for name, objective in distiller.objectives.items():
        # What answers in training only (auxiliary heads, and those of DETR, which mmdet's plain
        # forward does not call as a module); that they exist, the plan has checked.
        trained_only = any('auxiliary' in str(tap) for tap in objective.student_taps)
        trained_only |= any(tap.path == 'bbox_head' for tap in objective.student_taps)
        trained_only |= all(tap.call for tap in objective.student_taps)
        listens = bool(objective.student_taps)  # not so where a first phase needs the teacher only
        assert distiller.plan.seen[f'{name}.student'] or trained_only or not listens


def is_small(config):
    return config.startswith('mmkd::') and '_r101' not in config


def small(model):
    """Narrow, and with few proposals."""
    model = shrink(model)
    if 'rpn' in (model.get('test_cfg') or {}):
        model['test_cfg']['rpn']['max_per_img'] = 8
    return model


def prepare(model, folder):
    """Random weights, and small networks, in place of the teacher's checkpoint."""
    teacher = model.teacher
    entries = [teacher] if is_teacher(teacher) else teacher.values()
    if teacher.get('generalist'):  # whose members' checkpoints have their classes
        for entry in teacher.members.values():
            count = load_config(entry.config).model.num_classes
            entry.classes = [f'class {i}' for i in range(count - (count < 10))]
    networks = [m for e in entries for m in e.get('members', {'': e}).values()]
    # Ours are small as they are, but for teachers that nobody published.
    large = [e for e in networks if 'checkpoint' in e and not is_small(e.get('config', ''))]
    if large or any(kind_of(entry) is VisionModel for entry in networks):
        model.student = small(model.student)
    for entry in networks:
        if kind_of(entry) is Anchors:
            state = build_model(load_config(entry.config)).state_dict()
            for epoch in range(1, entry.anchors + 1):
                torch.save(dict(state_dict=state), folder / f'epoch_{epoch}.pth')
            entry.folder = str(folder)
        if kind_of(entry) is VisionModel:  # whose library and weights are not here
            patches = nn.Conv2d(3, 8, 16, 16)
            entry.clear()
            entry.update(type='mmkd.VisionModel', model=patches, checkpoint='random', patch=16)
        if 'checkpoint' not in entry or 'config' not in entry:
            continue
        checkpoint = entry.checkpoint
        if checkpoint == 'released':
            checkpoint = released_weights(entry.config)
        assert re.match(r'https://.*\.pth$|last$|released://|work_dirs/\w+(/teacher)?$', checkpoint)
        entry.checkpoint = 'random'
        if any(entry is e for e in large):
            entry.update(config=small(load_config(entry.config).model))
