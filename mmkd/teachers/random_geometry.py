"""Transforms that show a network another image than the one in the file, and differ by chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: parts of names; what has one is random and moves or replaces pixels
MOVING = (
    'affine',
    'albu',
    'augmix',
    'autoaugment',
    'choiceresize',
    'copypaste',
    'cutmix',
    'cutout',
    'erasing',
    'expand',
    'mixup',
    'mosaic',
    'perspective',
    'randaugment',
    'randomcrop',
    'randomresize',
    'randomrotate',
    'randomshift',
    'rotate',
    'shear',
    'translate',
    'trivialaugment',
)


def random_geometry(dataset: Any, flips: bool) -> list[str]:
    """Names of such transforms in the pipelines of a built dataset.

    Args:
        flips (bool): random flips are none, as for scores of whole images.
    """
    found = [type(t).__name__ for t in _transforms(dataset) if _moves(t, flips)]
    return list(dict.fromkeys(found))


def _moves(transform: Any, flips: bool) -> bool:
    name = type(transform).__name__.lower()
    if 'flip' in name:
        return not flips and getattr(transform, 'prob', 1) not in (0, None)
    return any(part in name for part in MOVING) or ('crop' in name and 'center' not in name)


def _transforms(one: Any) -> Iterator[Any]:
    """All transforms in a dataset's pipelines, those inside of others among them."""
    for attribute in ('dataset', 'datasets', 'pipeline', 'transforms'):
        inner = vars(one).get(attribute) if hasattr(one, '__dict__') else None
        for item in inner if isinstance(inner, (list, tuple)) else [inner]:
            items = item if isinstance(item, (list, tuple)) else [item]
            for part in items:
                if part is None or isinstance(part, (str, int, float, dict)):
                    continue
                if attribute == 'transforms':
                    yield part
                yield from _transforms(part)
