"""``configs/README.md``."""

from __future__ import annotations

from method_page import NOTE
from source import Recipe

TASKS = {
    'Detectors (COCO, VOC)': lambda r: 'mmdet::' in r.student or 'voc0712' in r.file,
    'Segmentors (Cityscapes, VOC, ADE20K)': lambda r: 'mmseg::' in r.student,
    'BCCD, a small detection set': lambda r: 'bccd' in r.file,
    'CamVid, a small segmentation set': lambda r: 'camvid' in r.file,
    'CIFAR-10': lambda r: 'cifar10' in r.file and 'cifar100' not in r.file,
    'Classifiers (ImageNet, CIFAR-100)': lambda r: 'cls_' in r.file,
    'Synthetic scenes, for the demo': lambda r: True,
}


def recipe_page(recipes: list[Recipe], several: dict[str, dict[str, str]]) -> str:
    """``configs/README.md``: configs by task and method, plain recipes first; then those of
    several runs, by folder."""
    left, parts = list(recipes), [NOTE, '# Configs', _CONFIGS]
    for title, belongs in TASKS.items():
        own = [r for r in left if belongs(r)]
        left = [r for r in left if r not in own]
        groups: dict[str, list[Recipe]] = {}
        for r in own:
            groups.setdefault(' + '.join(r.objectives) or 'plain', []).append(r)
        names = sorted(groups, key=lambda name: (name != 'plain', name.lower()))
        lines = [f'- **{name}**: {", ".join(map(_recipe_link, groups[name]))}' for name in names]
        parts += [f'## {title}', '\n'.join(lines)] if own else []
    for folder, files in several.items():
        lines = [f'- [{f.removesuffix(".py")}]({folder}/{f}): {t}' for f, t in files.items()]
        parts += [f'## {folder.capitalize()}\n\n{_SEVERAL[folder]}', '\n'.join(lines)]
    return '\n\n'.join(parts) + '\n'


_CONFIGS = (
    "By task and method. File names have the form `<method>_<student's model>_<teacher>_<student>"
    '[_<data>].py`; see [configs](../docs/configs.md) for the fields and '
    '[methods](../docs/methods.md) for the methods.'
)

_SEVERAL = {
    'chains': 'Procedures of several runs, see [chains](../docs/chains.md).',
    'studies': 'Teacher, plain and distilled students over seeds, see [studies](../docs/study.md).',
}


def _recipe_link(r: Recipe) -> str:
    return f'[{r.file.rpartition("/")[2].removesuffix(".py")}]({r.file})'
