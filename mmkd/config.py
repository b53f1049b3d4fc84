"""Where configs come from: files, installed packages (``mmdet::…``), and stock configs wrapped."""

from __future__ import annotations

import copy
import functools
import importlib.util
import os.path as osp
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from glob import glob
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import mmengine.config.config as mm_config
import mmengine.config.utils as mm_utils
from mmengine.config import Config, ConfigDict

from mmkd.errors.origin import circle_of, config_files, short
from mmkd.names import did_you_mean


def install_scopes() -> None:
    """Let ``_base_ = ['mmseg::…']`` and ``_base_ = ['mmkd::…']`` find their files.

    mmengine knows mmseg by the name of one distribution only and does not know mmkd at all.
    """
    try:
        distribution(mm_utils.MODULE2PACKAGE['mmseg'])
    except PackageNotFoundError:
        mm_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'
    stock = Config._get_cfg_path
    if getattr(stock, 'knows_mmkd', False):
        return

    def get_cfg_path(path: str, filename: str) -> tuple[str, str | None]:
        # No scope: our configs say 'mmkd.' where they mean it, all else is their parent's.
        own = path.startswith('mmkd::')
        found, scope = (own_config(path), None) if own else stock(path, filename)
        _refuse_circle(found)
        return found, scope

    get_cfg_path.knows_mmkd = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(get_cfg_path)


def find_files_first() -> None:
    """Look for the file of ``mmdet::…`` before the metafiles of all models.

    mmengine reads them, a hundred yaml files, for each such path, though they name the same file.
    """
    stock = mm_config._get_external_cfg_path
    if getattr(stock, 'knows_mmkd', False):
        return

    def external_path(package: str, name: str) -> str:
        path = osp.join(package, '.mim', 'configs', name)
        return path if osp.isfile(path) else stock(package, name)

    external_path.knows_mmkd = True  # type: ignore[attr-defined]
    mm_config._get_external_cfg_path = external_path


def lend_student_config() -> None:
    """Give a Distiller's config the entries of its student's, as the Distiller has its attributes,
    and that of an edited model those of the model.

    ``init_detector`` of mmdet, for instance, looks at ``config.model.backbone``.
    """
    stock = ConfigDict.__getattr__
    if getattr(stock, 'knows_mmkd', False):
        return

    def get(self: ConfigDict, name: str) -> Any:
        try:
            return stock(self, name)
        except AttributeError:
            if name.startswith('_') or (inner := _inner(self)) is None:
                raise
            return getattr(inner, name)

    get.knows_mmkd = True  # type: ignore[attr-defined]
    ConfigDict.__getattr__ = get


def format_once() -> None:
    """Let yapf format each text of a config once, not once more for the log, the hub and the file.

    For a run with a teacher each of the three takes about half a second.
    """
    stock = Config.pretty_text
    if getattr(stock.fget, 'knows_mmkd', False):
        return

    def pretty_text(self: Config) -> str:
        from yapf.yapflib import yapf_api

        if not hasattr(yapf_api.FormatCode, 'knows_mmkd'):
            yapf_api.FormatCode = _remembered(yapf_api.FormatCode)
        return stock.fget(self)

    pretty_text.knows_mmkd = True  # type: ignore[attr-defined]
    Config.pretty_text = property(pretty_text, doc=stock.__doc__)


def _remembered(format_code: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a text and options that keeps its last results."""
    known: dict[tuple[str, str], Any] = {}

    @functools.wraps(format_code)
    def remembered(text: str, *args: Any, **options: Any) -> Any:
        key = text, repr((args, options))
        if key not in known:
            result = format_code(text, *args, **options)
            while len(known) >= 4:
                known.pop(next(iter(known)))
            known[key] = result
        return known[key]

    remembered.knows_mmkd = True  # type: ignore[attr-defined]
    return remembered


def _refuse_circle(path: str) -> None:
    """Stop where a base is being read already: mmengine would go round until the stack is full."""
    callers = [*traceback.walk_stack(sys._getframe())][::-1]
    circle = circle_of([*config_files(callers), short(path)])
    if circle:
        raise ValueError(circle)


def own_config(path: str) -> str:
    """File behind ``'mmkd::name.py'``, in the installed package or in the source tree."""
    package = osp.dirname(osp.abspath(__file__))
    name = path.partition('::')[2]
    folders = [osp.join(package, '.mim', 'configs'), osp.join(osp.dirname(package), 'configs')]
    for folder in folders:
        if osp.isfile(osp.join(folder, name)):
            return osp.join(folder, name)
    known = {osp.relpath(f, d) for d in folders for f in glob(f'{d}/**/*.py', recursive=True)}
    raise FileNotFoundError(
        f'mmkd has no config {name!r}.{did_you_mean(name, known)} All are in configs/README.md.'
    )


def resolve(path: str) -> str:
    """File behind ``path``, which may be ``'mmdet::…'``, ``'mmseg::…'`` or ``'mmkd::…'``.

    Raises:
        FileNotFoundError: there is no such file or package.
    """
    if '::' not in path:
        if not osp.isfile(path):
            raise FileNotFoundError(
                f'Config {path!r} does not exist (looked in {osp.abspath(".")}).'
            )
        return path
    package = path.partition('::')[0]
    if importlib.util.find_spec(package) is None:
        raise FileNotFoundError(f'Config {path!r}: the package {package!r} is not installed.')
    try:
        return Config._get_cfg_path(path, '')[0]
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(f'Config {path!r} does not exist in {package}: {error}') from None


def load_config(path: str) -> Config:
    """Parse a config file; raises FileNotFoundError that names it."""
    return Config.fromfile(resolve(path))


def default_work_dir(path: str | None) -> str:
    """``work_dirs/<config name>``, where a run goes whose config names no ``work_dir``."""
    return osp.join('work_dirs', osp.splitext(osp.basename(path or 'run').rpartition('::')[2])[0])


def type_name(entry: Any) -> str:
    """``'Distiller'`` of ``type='mmkd.Distiller'``, of the class, its import path and an object."""
    kind = entry.get('type') if isinstance(entry, Mapping) else type(entry)
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def model_of(config: Any) -> Any:
    """The model's mapping in a whole config, or the mapping itself.

    Raises:
        TypeError: it is neither.
    """
    model = config
    if hasattr(config, 'get') and config.get('type') is None:  # that of mmkd.Edited has a model too
        model = config.get('model', config)
    if hasattr(model, 'get') and model.get('type') is not None:
        return model
    found = repr(model)
    if hasattr(model, 'keys'):
        found = f'dict({", ".join(f"{key}=…" for key in model)})'
    raise TypeError(
        "a model must be the path of a config, a mapping with the model's type, such as "
        f"dict(type='FasterRCNN', …), or a built model, found {found}."
    )


def with_preprocessor(model: Any, preprocessor: Mapping | None) -> Any:
    """A model's config with the data preprocessor of the run, if it names none itself."""
    if preprocessor and hasattr(model, 'setdefault'):
        model.setdefault('data_preprocessor', preprocessor)
    return model


def dataset_leaves(entry: Mapping) -> Iterator[Any]:
    """Configs of the datasets inside wrappers, such as RepeatDataset; themselves, no copies."""
    children = entry.get('datasets') or ([entry['dataset']] if entry.get('dataset') else [])
    for child in children:
        yield from dataset_leaves(child)
    if not children:
        yield entry


def calm_dataset(config: Mapping[str, Any], **changes: Any) -> Any:
    """Config of the training set with the pipeline of the validation: nothing changes at random.

    Args:
        **changes: further entries of the datasets inside wrappers.

    Returns:
        dict | None: None where one of both is missing, or is no config.
    """
    loaders = [config.get(f'{split}_dataloader') or {} for split in ('train', 'val')]
    train, val = (loader.get('dataset') for loader in loaders)
    if not isinstance(train, Mapping) or not isinstance(val, Mapping):
        return None
    pipeline = next(dataset_leaves(val)).get('pipeline')
    if pipeline is None:
        return None
    found = copy.deepcopy(train)
    for leaf in dataset_leaves(found):
        leaf.update(pipeline=copy.deepcopy(pipeline), **changes)
    return found


def _inner(config: Mapping[str, Any]) -> Any:
    """The network's own mapping in that of a Distiller or of ``mmkd.Edited``; None for others."""
    key = {'Distiller': 'student', 'Edited': 'model'}.get(type_name(config), '')
    return config.get(key)


def distils(model: Any) -> bool:
    """Whether a model's config is that of a Distiller, in either style of configs."""
    return isinstance(model, Mapping) and type_name(model) == 'Distiller'
