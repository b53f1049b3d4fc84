"""The generated tables and pages follow the source, and the generator says what it misses."""

import re
import subprocess
import sys

import pytest
import yaml
from messages import ROOT

sys.path.insert(0, str(ROOT / 'docs'))
import generate  # noqa: E402
import method_page  # noqa: E402
import source  # noqa: E402
import tables  # noqa: E402

METHOD = '''"""{name}: match what matters."""


@MODELS.register_module()
class {name}({base}):
    """Matching what matters.

    {paper}, eq. 1: ``|S - T|`` for :class:`~mmkd.tap.Trace`.

    Args:
        power (float | None): an exponent,
            above 0.
        student, teacher,
        weight: see :class:`~mmkd.objective.Objective`. The authors use 3.

    Raises:
        ValueError: power not above 0.
    """

    taps = ['neck', 'backbone']
    families = {families}
    only = {only}

    def __init__(self, weight=2.0, power=None, *, many=(1, 2)):
        pass
'''


def repository(folder, **values):
    """A repository with one method and one config that uses it."""
    values = {
        'name': 'Match',
        'only': "{'anchor': ('GFL', 'ATSS')}",
        'base': 'Objective',
        'paper': "O'Neil and Smith, NeurIPS 2020",
        'families': "('anchor', 'two_stage')",
        **values,
    }
    for name in ('mmkd/methods', 'configs'):
        (folder / name).mkdir(parents=True)
    (folder / 'mmkd' / 'methods' / 'match.py').write_text(METHOD.format(**values))
    (folder / 'configs' / 'match_a_b.py').write_text(
        "_base_ = ['mmdet::x.py']\nmodel = dict(teacher=dict(config='mmdet::t.py'),\n"
        "    objectives=dict(m=dict(type='mmkd.Match')))\n"
    )
    return folder


def test_generated_files_are_up_to_date():
    old = [path.relative_to(ROOT).as_posix() for path in generate.stale()]
    assert not old, f'run: python docs/generate.py ({", ".join(old)})'


def test_check_imports_nothing_heavy_and_exits_with_zero():
    code = (
        "import sys, runpy; sys.path.insert(0, 'docs'); sys.argv = ['generate.py', '--check']\n"
        "try: runpy.run_path('docs/generate.py', run_name='__main__')\n"
        'except SystemExit as end: code = end.code\n'
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_every_registered_method_is_listed():
    from mmkd.methods import names

    assert sorted(method.name for method in source.read_methods()) == sorted(names())


def test_facts_of_the_tables_are_those_of_the_classes():
    from mmkd import methods
    from mmkd.schedule import Progress

    for method in source.read_methods():
        cls = getattr(methods, method.name)
        assert set(method.families) == set(cls.families)
        assert method.only == cls.only
        for name in ('needs_teacher', 'needs_ground_truth', 'zero_at_equality', 'rank_invariant'):
            assert getattr(method, name) == getattr(cls, name), (method.name, name)
        assert set(method.named_taps) == set(cls.named_taps)
        (weight,) = [o for o in method.options if o.name == 'weight']
        if weight.default == 'None':  # the method chooses, and the page says how
            assert re.search(r'\d', weight.meaning), method.name
        else:
            assert cls().weight(Progress(1, 2)) == float(weight.default), method.name


def test_method_is_read_from_its_file(tmp_path):
    (method,) = source.read_methods(repository(tmp_path))
    assert method.paper == "O'Neil and Smith, NeurIPS 2020"
    assert method.compares == 'match what matters.'
    assert method.families == ('two_stage', 'anchor')
    assert method.taps == '`neck`, `backbone`'
    assert method.configs == ['match_a_b.py']
    assert [(o.name, o.default) for o in method.options] == [('power', 'None'), ('weight', '2.0')]
    assert method.options[0].meaning == 'an exponent, above 0.'
    assert method.remark == 'The authors use 3.'
    text = method_page.page([method])
    assert '`|S - T|` for `Trace`' in text and '(float \\| None) an exponent' in text
    assert 'Refused with a message: power not above 0.' in text


def test_indented_lines_after_two_colons_are_a_block(tmp_path):
    paper = (
        "O'Neil and Smith, NeurIPS 2020. Two phases::\n\n        train.py a.py  # first\n\n"
        '        train.py b.py\n            --resume\n\n    Then'
    )
    (method,) = source.read_methods(repository(tmp_path, paper=paper))
    text = method_page.page([method])
    block = '```\ntrain.py a.py  # first\n\ntrain.py b.py\n    --resume\n```'
    assert f'NeurIPS 2020. Two phases:\n\n{block}\n\nThen, eq. 1' in text


def test_items_of_a_list_are_lines_of_their_own():
    text = """Terms:

* ``loss_a``: a distance,
  squared;
* ``loss_b``: 2 * 3 of it.
"""
    wanted = '* `loss_a`: a distance, squared;\n* `loss_b`: 2 * 3 of it.'
    assert source.text.paragraphs(text) == ['Terms:', wanted]


def test_families_in_tables(tmp_path):
    (method,) = source.read_methods(repository(tmp_path / 'some'))
    assert '| two-stage, anchor-based dense (GFL, ATSS) |' in tables.short_tables([method])
    assert '| yes |  | GFL, ATSS |  |' in tables.full_table([method])
    every = dict(families="(*DETECTORS, 'segmentor')", only='{}')
    (method,) = source.read_methods(repository(tmp_path / 'all', **every))
    assert set(method.families) == {*source.detectors(), 'segmentor'}
    assert '| any detector, segmentor |' in tables.short_tables([method])
    most = dict(families='WITH_INSTANCES', only='{}')
    (method,) = source.read_methods(repository(tmp_path / 'most', **most))
    wanted = '| any detector but YOLO, segmentor, classifier |'
    assert wanted in tables.short_tables([method])


def test_config_is_read_from_its_syntax_tree(tmp_path):
    (recipe,) = source.read_recipes(repository(tmp_path))
    assert (recipe.student, recipe.teacher) == ('mmdet::x.py', 'mmdet::t.py')
    assert recipe.objectives == ('Match',)


@pytest.mark.parametrize(
    'values, complaint',
    [
        (dict(paper='Somebody, some day'), 'authors, venue and year'),
        (dict(families='()'), 'name those it works for'),
        (dict(families="('dens',)"), 'dens'),
        (dict(base='Parent'), 'derive it from Objective or PairObjective or InstanceObjective'),
    ],
)
def test_incomplete_method_is_named(tmp_path, values, complaint):
    with pytest.raises(source.UndocumentedError, match=complaint) as error:
        source.read_methods(repository(tmp_path, **values))
    assert 'mmkd/methods/match.py, Match' in str(error.value)


@pytest.mark.parametrize(
    'objectives, complaint',
    [
        ("m=dict(type='mmkd.Macth')", 'Macth is no objective'),
        ("m=dict(type='mmkd.' + 'Match')", 'as strings'),
        ('', 'a Distiller without objectives'),
    ],
)
def test_config_that_cannot_be_placed_is_named(tmp_path, objectives, complaint):
    root = repository(tmp_path)
    path = root / 'configs' / 'match_a_b.py'
    path.write_text(f"model = dict(type='mmkd.Distiller', objectives=dict({objectives}))\n")
    with pytest.raises(source.UndocumentedError, match=complaint) as error:
        source.read_methods(root)
    assert 'configs/match_a_b.py' in str(error.value)


def test_samplers_beside_the_objectives_are_none(tmp_path):
    root = repository(tmp_path)
    with (root / 'configs' / 'match_a_b.py').open('a') as file:
        file.write("train_dataloader = dict(sampler=dict(type='mmkd.ClassPairSampler'))\n")
    assert source.read_recipes(root)[0].objectives == ('Match',)


def test_names_and_navigation_group_methods_by_task(tmp_path):
    (detector,) = source.read_methods(repository(tmp_path / 'a'))
    (classifier,) = source.read_methods(repository(tmp_path / 'b', families="('classifier',)"))
    assert '- **Detectors**: [Match](docs/methods/match.md)\n' in tables.name_list([detector])
    entries = yaml.safe_load(tables.navigation([detector, classifier]))
    page = {'Match': 'methods/match.md'}
    assert entries == [{'Detectors': [page]}, {'Classifiers': [page]}]


def test_region_of_yaml_is_replaced():
    text = 'a: 1\n  # methods: written\n  - old\n  # /methods\nb: 2\n'
    replaced = generate.between(text, 'methods', '  - new')
    assert replaced == 'a: 1\n  # methods: written\n  - new\n  # /methods\nb: 2\n'


def test_missing_marker_is_named():
    with pytest.raises(ValueError, match='no <!-- methods -->'):
        generate.between('nothing here', 'methods', 'table')
