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


def recipe_page(recipes: list[Recipe], chains: dict[str, str]) -> str:
    """``configs/README.md``: configs by task and method, plain recipes first; then the chains."""
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
    lines = [
        f'- [{name.removesuffix(".py")}](chains/{name}): {text}' for name, text in chains.items()
    ]
    parts += [f'## Chains\n\n{_CHAINS}', '\n'.join(lines)] if lines else []
    return '\n\n'.join(parts) + '\n'


_CONFIGS = (
    "By task and method. File names have the form `<method>_<student's model>_<teacher>_<student>"
    '[_<data>].py`; see [configs](../docs/configs.md) for the fields and '
    '[methods](../docs/methods.md) for the methods.'
)

_CHAINS = 'Procedures of several runs, see [chains](../docs/chains.md).'


def _recipe_link(r: Recipe) -> str:
    return f'[{r.file.rpartition("/")[2].removesuffix(".py")}]({r.file})'
