"""Options, shapes and lines of the networks in a teacher."""

from mmkd.distiller import Distiller
from mmkd.testing import ToyNet


def distiller(**options):
    members = {n: dict(config=ToyNet(6, norm='BN'), checkpoint='random', **options) for n in 'ab'}
    teacher = dict(type='mmkd.Ensemble', mean='feature', members=members)
    objectives = dict(it=dict(type='mmkd.SP', student='neck', teacher='neck'))
    return Distiller(ToyNet(), objectives, teacher, preflight=False)


def test_each_member_has_its_options():
    model = distiller(dtype='bf16')
    parts = model.teachers['teacher'].parts()
    assert list(parts) == ['.a', '.b']
    assert all(str(next(p.model.parameters()).dtype) == 'torch.bfloat16' for p in parts.values())


def test_each_network_has_its_lines():
    text = str(distiller().plan)
    for line in (
        'teacher: Ensemble',
        'teacher.a: ToyNet',
        'teacher.b: ToyNet',
    ):
        assert line in text
