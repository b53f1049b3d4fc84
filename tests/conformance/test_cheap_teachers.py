"""Every objective under every option of a teacher, and under a student in another memory layout.

Objectives of a family share one Distiller, so that one forward of each network serves all; one that
generates the images has its own.
"""

import copy

import pytest
import torch
from cases import batch, method, networks, pairs

from mmkd import compiled
from mmkd.distiller import Distiller
from mmkd.schedule import Schedule
from mmkd.teacher import Teacher

#: Options, and how far a loss may be from that under the plain teacher, as a share of it. Where
#: nothing is rounded only the order of sums differs; fp16 keeps 11 bits of a number, bf16 8, which
#: is tried with all the rest.
OPTIONS = {
    'channels_last': (dict(memory_format='channels_last'), 2e-4),
    'fused': (dict(fuse_conv_bn=True), 2e-4),
    'compiled': (dict(compile=True), 2e-4),
    'fp16': (dict(dtype='fp16'), 1e-2),
    'all': (dict(dtype='bf16', fuse_conv_bn=True, memory_format='channels_last'), 5e-2),
}
#: GID keeps the boxes that the teacher scores highest: rounding may change the choice
CHOICE = {'gid': 2}
#: family and methods of each Distiller
GROUPS = {
    key: (key, [n for n, k in pairs() if k == key and not method(n).makes_images])
    for _, key in pairs()
}
GROUPS |= {n: (key, [n]) for n, key in pairs() if method(n).makes_images}


def losses(group, layout=torch.preserve_format, **options):
    """All losses of one step, the task's too, with the same random numbers whatever the options."""
    family, names = GROUPS[group]
    own, frozen = networks(family)
    student, teacher = copy.deepcopy(own), copy.deepcopy(frozen.model)
    torch.manual_seed(0)
    objectives = {name.lower(): method(name)() for name in names}
    distiller = Distiller(
        student,
        objectives,
        Teacher(teacher, checkpoint='random', **options),
        task_weight=None if group in names else 1.0,  # generated images have no labels
        preflight=False,
    )
    for objective in objectives.values():
        objective.weight = Schedule(1.0)
    distiller.to(memory_format=layout)
    inputs, samples = batch(family)
    torch.manual_seed(0)
    found = distiller.loss(inputs, samples)
    heard = distiller.teachers['teacher']
    if options.get('compile') and heard.recorder.taps:
        assert len(heard.compiled.programs) == 1
    flat = {k: v if isinstance(v, torch.Tensor) else sum(v) for k, v in found.items()}
    return {k: float(v.detach()) for k, v in flat.items() if 'loss' in k}


@pytest.fixture(scope='module', params=GROUPS)
def plain(request):
    return request.param, losses(request.param)


def assert_close(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        rel = tolerance * CHOICE.get(key.split('.')[1] if '.' in key else '', 1)
        assert found[key] == pytest.approx(value, rel=rel, abs=1e-6), key


@pytest.mark.parametrize('option', OPTIONS)
def test_losses_under_a_cheaper_teacher_are_those_under_the_plain_one(plain, option, monkeypatch):
    monkeypatch.setattr(compiled, 'BACKEND', 'eager')  # captured, without minutes of a compiler
    group, wanted = plain
    options, tolerance = OPTIONS[option]
    assert_close(losses(group, **options), wanted, tolerance)


def test_losses_of_a_student_in_channels_last_are_those_of_the_plain_one(plain):
    group, wanted = plain
    assert_close(losses(group, layout=torch.channels_last), wanted, 2e-4)
