"""What a Distiller is built from: several teachers and objectives, and what is refused."""

import pytest
import torch
from distiller_toys import Square, batch, toy
from mmengine.config import Config

import mmkd
from mmkd.building import build_teachers
from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.registry import MODELS
from mmkd.tap import parse_taps
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, tiny_pspnet

# -------------------------------------------------------------------------- several of everything


def test_several_teachers_by_name():
    teachers = dict(
        big=Teacher(ToyNet(6), checkpoint='random'), small=Teacher(ToyNet(2), checkpoint='random')
    )
    objectives = dict(a=Square(teacher_name='big'), b=Square(teacher_name='small'))
    distiller = toy(objectives, teachers)
    widths = [distiller.objectives[k].adapters['0'].conv.out_channels for k in 'ab']
    assert widths == [6, 2]
    for name, wanted in (('big', 'kd.a.loss'), ('small', 'kd.b.loss')):
        with torch.no_grad():
            before = float(distiller.loss(*batch())[wanted])
            for p in distiller.teachers[name].model.parameters():
                p.mul_(3)
            assert float(distiller.loss(*batch())[wanted]) != before


def test_an_objective_may_listen_to_several_networks_in_its_order():
    class Mean(Objective):
        taps, many_teachers = 'neck', True

        def bind(self, student, teacher):
            self.bound = [*getattr(self, 'bound', ()), teacher]

        def forward(self, trace):
            self.heard = trace.teachers
            wanted = sum(side['neck'][0] for side in trace.teachers.values()) / len(trace.teachers)
            return (trace.student['neck'][0] - wanted).square().mean()

    teachers = {n: Teacher(ToyNet(), checkpoint='random') for n in 'abc'}
    distiller = toy(dict(it=Mean(teacher_name=['c', 'a', 'Student'])), teachers)
    objective, (inputs, samples) = distiller.objectives['it'], batch()
    networks = [teachers['c'].model, teachers['a'].model, distiller.student]
    assert objective.bound == networks
    found = distiller.loss(inputs, samples)['kd.it.loss']
    assert list(objective.heard) == ['c', 'a', 'student']
    c, a, own = (network.extract_feat(inputs)[0] for network in networks)
    assert torch.equal(found, (own - (c + a + own.detach()) / 3).square().mean())
    assert 'c, as teacher neck: ' in str(distiller.plan) and distiller.plan.seen['it.a']


def test_teachers_of_one_file_are_loaded_once_and_have_taps_of_their_own(tmp_path):
    model = tiny_pspnet(8)
    torch.save(build_model(model).state_dict(), tmp_path / 'teacher.pth')
    Config(dict(model=model, default_scope='mmseg')).dump(tmp_path / 'teacher.py')
    entry = dict(config=str(tmp_path / 'teacher.py'), checkpoint=str(tmp_path / 'teacher.pth'))
    random = dict(entry, checkpoint='random')
    found = build_teachers(
        dict(a=entry, b=dict(entry), c=dict(entry, fuse_conv_bn=True), d=random, e=random)
    )
    assert found['a'].model is found['b'].model and found['a'] is not found['b']
    assert len({id(teacher.model) for teacher in found.values()}) == 4
    found['a'].set_taps(parse_taps('backbone')), found['b'].set_taps(parse_taps('decode_head'))
    assert (found['a'].route, found['b'].route) == ('backbone', 'tensor')


def test_which_teacher_must_be_clear():
    teachers = {n: Teacher(ToyNet(), checkpoint='random') for n in ('a', 'b')}
    with pytest.raises(
        ValueError, match="objective 'square': Square names no teacher_name. Teachers: a, b"
    ):
        toy(teacher=teachers)
    with pytest.raises(ValueError, match="teacher_name='c'. Teachers: a, b"):
        toy(dict(it=Square(teacher_name='c')), teachers)
    with pytest.raises(ValueError, match='none; add teacher='):
        toy(teacher={})


def test_an_objective_without_teacher_needs_none():
    class Alone(Objective):
        taps, needs_teacher = 'neck', False

        def forward(self, trace):
            assert not trace.teachers
            return trace.student['neck'][0].square().mean()

    distiller = toy(dict(alone=Alone()), teacher={})
    assert float(distiller.loss(*batch())['kd.alone.loss']) > 0


def test_two_objectives_may_share_a_tap():
    distiller = toy(dict(a=Square(), b=Square(student='neck[0]')))
    assert set(distiller.recorder.taps) == {'neck'}
    losses = distiller.loss(*batch())
    assert losses['kd.a.loss'] != losses['kd.b.loss']


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ('objectives', 'kind', 'message'),
    [
        (dict(my_loss=Square()), ValueError, "objective name 'my_loss'"),
        ({'a.b': Square()}, ValueError, "objective name 'a.b'"),
        ({'': Square()}, ValueError, 'objective name'),
        (dict(train=Square()), ValueError, "objective name 'train'"),
        ([dict(type='mmkd.CWD')], TypeError, 'must be a mapping of names'),
        (dict(a='mmkd.CWD'), TypeError, "objective 'a': must be dict"),
        (dict(a=dict(weight=1)), ValueError, 'type=None is not registered. Methods of mmkd: .*CWD'),
        (dict(a=dict(type='mmkd.CWP')), ValueError, "type='mmkd.CWP' is not registered"),
        (dict(a=dict(type='mmkd.CWD', tua=1)), TypeError, 'CWD has no option tua; it has .*tau'),
        (dict(a=dict(type='mmkd.CWD', weight=-1)), ValueError, "objective 'a': weight must be"),
        (dict(a=dict(type='mmkd.CWD', tau=0)), ValueError, "objective 'a': CWD: temperature"),
        (dict(a=dict(type='mmkd.ToyNet')), TypeError, "objective 'a' is a ToyNet, no Objective"),
        (dict(a=Square(student='nek')), ValueError, "no module 'nek'.*neck"),
        (
            dict(a=Square(resize='big') if False else dict(type='mmkd.CWD', resize='big')),
            ValueError,
            'resize must be',
        ),
    ],
)
def test_bad_objectives_are_refused_by_name(objectives, kind, message):
    with pytest.raises(kind, match=message):
        toy(objectives)


def test_an_entry_merged_away_is_gone():
    assert not toy(dict(a=None)).objectives


def test_unequal_widths_without_adapter_are_refused_at_build():
    with pytest.raises(ValueError, match="'neck' has 4 channels and teacher 'neck' 6"):
        toy(dict(a=Square(adapt=None)))


def test_a_tap_that_cannot_be_probed_asks_for_widths():
    class Picky(ToyNet):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'tensor':
                raise RuntimeError('not today')
            return super().forward(inputs, data_samples, mode)

    teacher = Teacher(ToyNet(6), checkpoint='random')
    with pytest.raises(ValueError, match='could not be probed at build; give in_channels='):
        toy(dict(a=Square(student='head.shared[0]')), teacher, Picky())
    distiller = toy(
        dict(a=Square(student='head.shared[0]', in_channels=4, out_channels=6)), teacher, Picky()
    )
    assert float(distiller.loss(*batch())['kd.a.loss']) > 0


def test_public_names():
    assert all(hasattr(mmkd, name) for name in mmkd.__all__)
    assert MODELS.get('mmkd.Distiller') is Distiller
