"""Code on the pages runs: Python is executed and what it configures is built, commands are parsed.

A Python block that begins with ``# file: NAME`` or with ``_base_`` is a file; the others of a page
are executed one after the other. Bash blocks are read command by command: their tools must take
the arguments. Blocks of other languages are what a command prints.
"""

import importlib
import inspect
import re
import shlex
import sys
from string import Template
from types import SimpleNamespace

import library_toys
import pytest
import torch
from messages import ROOT
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope, init_default_scope

from mmkd import MODELS, registry
from mmkd.building import build_objectives, build_teachers
from mmkd.checks.guard import Guard
from mmkd.commands import COMMANDS
from mmkd.config import load_config, resolve
from mmkd.datasets.synthetic import write_coco, write_folders
from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.options import options_of
from mmkd.study import Study
from mmkd.teacher import build_model
from mmkd.teachers import is_teacher, kind_of
from mmkd.testing import tiny_faster_rcnn

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
METHODS = sorted((ROOT / 'docs' / 'methods').glob('*.md'))
#: models that the pages call their own
MINE = ('my_student', 'my_teacher', 'big_teacher', 'other_teacher')
MINE += ('faster_rcnn_r18', 'faster_rcnn_r34', 'work_dirs/faster_rcnn_r34/epoch_1')


def blocks(page, language):
    return re.findall(rf'^```{language}\n(.*?)^```$', page.read_text(), re.M | re.S)


def with_blocks(pages, language):
    return [pytest.param(p, id=p.stem) for p in pages if blocks(p, language)]


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """A folder with the files that the pages call theirs."""
    root = tmp_path_factory.mktemp('world')
    (root / 'work_dirs/faster_rcnn_r34').mkdir(parents=True)
    write_coco(root / 'data', 2, 2, size=(64, 48))
    config = load_config(str(ROOT / 'configs/demo_teacher.py'))
    text = config.pretty_text.replace('work_dirs/demo/data/', f'{root}/data/')
    model = build_model(Config(dict(model=tiny_faster_rcnn(8), default_scope='mmdet')))
    for name in MINE:
        path = root / f'{name}.py'
        path.write_text(text + f'\nmodel = {tiny_faster_rcnn(8)!r}\n')
        torch.save(dict(state_dict=model.state_dict()), path.with_suffix('.pth'))
    fused = dict(type='mmkd.Distiller', student=tiny_faster_rcnn(8))
    fused['objectives'] = dict(fusion=dict(type='mmkd.ScaleFusion'))
    model = Distiller(fused['student'], fused['objectives'])
    (root / 'my_scale_fusion.py').write_text(f'{text}\nmodel = {fused!r}\n')
    torch.save(dict(state_dict=model.state_dict()), root / 'my_scale_fusion.pth')
    (root / 'configs').symlink_to(ROOT / 'configs')
    write_folders(root / 'data/cifar10', 5, 5, size=(32, 32))
    classifier = build_model(load_config(str(ROOT / 'configs/small/cls_r14w16_cifar10.py')))
    torch.save(classifier.state_dict(), root / 'teacher.pth')
    (root / 'weights').mkdir()
    library_toys.write_folder(root / 'weights/dinov3_vitb16')
    patches = {'patches.weight': torch.zeros(192, 3, 16, 16), 'patches.bias': torch.zeros(192)}
    torch.save(patches, root / 'my_encoder.pth')
    return root


@pytest.fixture
def as_found(world, monkeypatch):
    """Run in that folder; modules, registered methods and default scope go afterwards."""
    MODELS.import_postponed()  # what is registered now is what will be restored
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(str(world))
    known = [sys.modules, MODELS.module_dict, DefaultScope._instance_dict]
    before = [dict(mapping) for mapping in known]
    yield world
    for mapping, old in zip(known[1:], before[1:], strict=True):
        mapping.clear()
        mapping.update(old)
    for name in set(sys.modules) - set(before[0]):
        if name.startswith('my_'):
            del sys.modules[name]


@pytest.mark.parametrize('page', with_blocks([*PAGES, *METHODS], 'python'))
def test_python_runs(page, as_found, surroundings, monkeypatch):
    monkeypatch.setenv('CIFAR10_ROOT', 'data/cifar10')
    monkeypatch.setitem(sys.modules, 'transformers', library_toys.transformers())
    names: dict = {'checkpoint': 'my_teacher.pth', **surroundings}
    init_default_scope('mmdet')
    for number, block in enumerate(blocks(page, 'python'), 1):
        block = block.replace('/home/me', str(as_found))
        file = re.match(r'# file: (\w+)\.py\n', block)
        if file or block.startswith('_base_ ='):
            path = as_found / f'{file[1] if file else f"block_{number}"}.py'
            path.write_text(block)
            if '_base_ =' in block or 'read_base' in block:
                check(load_config(str(path)))
            else:
                importlib.import_module(file[1])
            continue
        known = set(names)
        exec(compile(block, f'{page.name}, block {number}', 'exec'), names)
        check({name: value for name, value in names.items() if name not in known})
        for name in set(names) - known - {'__builtins__'}:
            if isinstance(names[name], dict):  # a fragment of a config, not a variable
                del names[name]


@pytest.fixture(scope='module')
def surroundings(world):
    """What fragments are fragments of: a parent config, a dataset that was built from it."""
    cfg = load_config(str(world / 'my_student.py'))
    with registry.DATASETS.switch_scope_and_registry('mmdet') as datasets:
        dataset = datasets.build(cfg.train_dataloader.dataset)
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))
    base = ConfigDict(model=dict(data_preprocessor={}, neck={}, bbox_head={}))
    return dict(_base_=base, cfg=cfg, runner=runner)


def check(found):
    """Build the parts of a config that are mmkd's, and know the others' types by name."""
    if 'methods' in found:
        Study.read(found)
        return
    parts = dict(found.get('model') or {}) if isinstance(found.get('model'), dict) else {}
    parts.update((k, v) for k, v in found.items() if k in ('teacher', 'objectives', 'preflight'))
    if parts.get('objectives'):
        build_objectives(parts['objectives'])
    teachers = parts.get('teacher') or {}
    for one in [teachers] if is_teacher(teachers) else teachers.values():
        if 'type' in one:
            build_teachers(one)
            continue
        resolve(one['config'])
        if one['checkpoint'].startswith('my_'):
            build_teachers(one)
    if 'preflight' in parts:
        Guard.of(parts['preflight'])
    for entry in mappings(found):
        check_type(entry)


def mappings(value):
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list, tuple)):
            yield from mappings(item)


def check_type(entry):
    kind = entry.get('type')
    if not isinstance(kind, str) or not kind.startswith('mmkd.'):
        return
    tables = [t for t in vars(registry).values() if isinstance(t, registry.Registry)]
    found = [table.get(kind) for table in tables]
    if not any(found):
        found = [kind_of(entry)]
    cls = next((c for c in found if c is not None), None)
    assert cls, kind
    parameters = inspect.signature(cls).parameters.values()
    method = isinstance(cls, type) and issubclass(cls, Objective)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters) and not method
    names = options_of(cls) if isinstance(cls, type) else (p.name for p in parameters)
    known = {*names, 'type', '_delete_', '_scope_'}
    assert open_ended or set(entry) <= known, (kind, set(entry) - known)


@pytest.mark.parametrize('page', with_blocks(PAGES, 'bash'))
def test_commands_are_understood(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    targets = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.M))
    for block in blocks(page, 'bash'):
        values = dict(re.findall(r'^([A-Z]+)="(.*)"$', block, re.M))
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(Template(line).safe_substitute(values), comments=True)
            while words and re.match(r'[A-Z_]+=', words[0]):
                words = words[1:]
            if words[:1] == ['make']:
                assert words[1] in targets, line
            elif words[:1] == ['mmkd'] and words[2:] != ['--help']:
                args = parser_of(words[1]).parse_args(words[2:])  # SystemExit where one is unknown
                if words[1] == 'make' and args.options:
                    check_maker(args)
            elif words[:1] == ['python']:
                check_python(words[1:], monkeypatch)
            elif words[:1] == ['bash']:
                assert (ROOT / words[1]).is_file(), line


def check_maker(args):
    known = options_of(registry.MAKERS.get(args.type))
    assert {key.split('.')[0] for key in args.options} <= known.keys(), args


def check_python(words, monkeypatch):
    if words[0] == '-m':
        assert importlib.util.find_spec(words[1]), words
        return
    name = re.fullmatch(r'tools/(\w+)\.py', words[0])[1]
    if name in COMMANDS:
        parser_of(name).parse_args(words[1:])
        return
    monkeypatch.setattr(sys, 'argv', words)
    importlib.import_module(name).parse_args()


def parser_of(command):
    return importlib.import_module(f'mmkd.commands.{command}').parser()
