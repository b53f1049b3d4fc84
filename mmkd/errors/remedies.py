"""Advice for errors of other packages whose messages contain none."""

from __future__ import annotations

import os
import pickle
import re
import zipfile

from mmkd.errors.origin import Origin, short
from mmkd.names import did_you_mean, find_name, nearest
from mmkd.options import options_of
from mmkd.registry import registered

#: what pip calls a module, where that is another name
_PIP = {
    'cityscapesscripts': 'cityscapesscripts',
    'clip': 'git+https://github.com/openai/CLIP.git',
    'cv2': 'opencv-python-headless',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmengine': 'onedl-mmengine',
    'mmpretrain': 'onedl-mmpretrain',
    'mmseg': 'onedl-mmsegmentation',
    'panopticapi': 'git+https://github.com/cocodataset/panopticapi.git',
    'PIL': 'pillow',
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'yaml': 'pyyaml',
}
#: modules that pip knows by the same name
_SAME = {
    *(
        'albumentations',
        'clearml',
        'dvclive',
        'einops',
        'ftfy',
        'imagecorruptions',
        'instaboostfast',
    ),
    *('lmdb', 'lvis', 'matplotlib', 'mlflow', 'neptune', 'nltk', 'pandas', 'pycocotools', 'regex'),
    *('safetensors', 'scipy', 'seaborn', 'shapely', 'tensorboard', 'tensorboardX', 'timm'),
    *('torchvision', 'transformers', 'visdom', 'wandb'),
}
#: exceptions of readers, and variables in which code commonly holds the path
_READING = (UnicodeDecodeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)
_READING_BY_NAME = {
    *('json.JSONDecodeError', 'cv2.error', 'PIL.UnidentifiedImageError', 'xml.ParseError'),
    *('yaml.ParserError', 'yaml.ScannerError'),
}
_FILE_VARIABLES = {
    *('ann_file', 'annotation_file', 'file', 'file_path', 'filename', 'filepath', 'img_path'),
    *('path', 'uri'),
}
_MEMORY = 'Lower batch_size or the size of the images; on a GPU, --amp also saves memory.'
_WORKERS = (
    'A worker ran out of memory, or of shared memory (/dev/shm): lower num_workers and batch_size.'
)


def remedy(error: BaseException, origin: Origin) -> str:
    """One sentence of advice, or nothing."""
    if isinstance(error, ImportError):
        return _install(error)
    if isinstance(error, SyntaxError):
        return _faulty_line(error)
    if isinstance(error, MemoryError) or re.search(
        r"out of memory|can't allocate memory|Cannot allocate memory", origin.message
    ):
        return _MEMORY
    if re.search(r'DataLoader worker .*(killed|exited unexpectedly)', origin.message):
        return _WORKERS
    return (
        _nearest_type(origin.message)
        or _nearest_option(origin)
        or _nearest_optimizer(origin)
        or _nearest_metric(error, origin)
        or _no_masks(origin.message)
        or _not_packed(error)
        or _file(error, origin)
    )


def _install(error: BaseException | None) -> str:
    """The command that brings a missing module, looked for in the whole chain of causes."""
    seen: list[BaseException] = []
    missing = None
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, ImportError) and error.name and not error.path:
            missing = error.name.partition('.')[0]
        error = error.__cause__ or error.__context__
    if any('pip install' in str(each) for each in seen):
        return ''
    said = str(seen[0])
    known = [name for name in (*_PIP, *_SAME) if re.search(rf'\b{re.escape(name)}\b', said)]
    name = missing if missing in (*_PIP, *_SAME) else known[0] if known else None
    if name:
        return f'Install what is missing: pip install {_PIP.get(name, name)}'
    if missing:
        return f'Install {missing}, or add the folder in which it lies to PYTHONPATH.'
    return ''


def _faulty_line(error: SyntaxError) -> str:
    cause = error.__context__ if isinstance(error.__context__, SyntaxError) else error
    text = (cause.text or '').strip()
    return f'The line reads: {text}' if text else ''


def _nearest_optimizer(origin: Origin) -> str:
    """For an optimiser that mmengine does not find, whose error is that None is not callable."""
    makers = [f.f_locals.get('self') for f, _ in origin.frames]
    config = next((m.optimizer_cfg for m in makers if hasattr(m, 'optimizer_cfg')), None)
    if config is None or origin.message != 'None is not a callable object':
        return ''
    known = registered('optimizer', 'mmengine')
    return f'There is no optimizer {config.get("type")}.{did_you_mean(config.get("type"), known)}'


def _nearest_type(message: str) -> str:
    """For a ``type`` that mmengine's registry does not have: the one that is meant, perhaps."""
    match = re.search(r'(\S+) is not in the (?:(\S+)::)?(.+?) registry', message)
    if not match:
        return ''
    asked, scope, kind = match.groups()
    wanted, _, name = asked.rpartition('.')
    scopes = registered(kind, wanted or scope or 'mmengine')
    close = find_name(name, scopes) or nearest(name, scopes)
    if close is None:
        return ''
    bare = not wanted and scopes[close] in ('mmengine', scope)
    return f'Did you mean {close if bare else f"{scopes[close]}.{close}"!r}?'


def _nearest_option(origin: Origin) -> str:
    """For an argument that a class of the config does not take: those that it does."""
    match = re.search(r"__init__\(\) got an unexpected keyword argument '(\w+)'", origin.message)
    built = [f.f_locals['obj_cls'] for f, _ in origin.frames if 'obj_cls' in f.f_locals]
    if not match or not built or not isinstance(built[-1], type):
        return ''
    known = list(options_of(built[-1]))
    return f'It takes {", ".join(known)}.{did_you_mean(match[1], known)}'


def _no_masks(message: str) -> str:
    """For an instance segmentor whose batch has boxes alone."""
    if not re.search(r'InstanceData.* has no attribute .*masks', message):
        return ''
    return (
        'The objects of this batch have no masks: set LoadAnnotations(with_bbox=True, '
        'with_mask=True) in train_dataloader.dataset.pipeline.'
    )


def _not_packed(error: BaseException) -> str:
    """For a batch as its pipeline left it, without the last transform."""
    if not isinstance(error, KeyError) or error.args != ('inputs',):
        return ''
    return (
        'Does the pipeline of the dataset end with a transform that packs what was loaded, '
        'mmkd.PackClassInputs, PackDetInputs (mmdet) or PackSegInputs (mmseg)?'
    )


def _nearest_metric(error: BaseException, origin: Origin) -> str:
    """For a ``save_best`` that the validation does not measure: what it does."""
    found = origin.frames[-1][0].f_locals if origin.frames else {}
    metrics, asked = found.get('metrics'), found.get('key_indicator')
    if not isinstance(error, KeyError) or error.args != (asked,) or not isinstance(metrics, dict):
        return ''
    return (
        f'default_hooks.checkpoint.save_best={asked!r} is no metric of the validation, which has '
        f'{", ".join(metrics)}.{did_you_mean(asked, metrics)}'
    )


def _file(error: BaseException, origin: Origin) -> str:
    """The file that could not be read, if only the code names it."""
    if not isinstance(error, _READING) and origin.kind not in _READING_BY_NAME:
        return ''
    for frame, _ in reversed(origin.frames):
        for name in _FILE_VARIABLES & frame.f_locals.keys():
            path = frame.f_locals[name]
            if isinstance(path, (str, os.PathLike)) and os.path.isfile(path):
                return f'The file is {short(str(path))}.'
    return ''
