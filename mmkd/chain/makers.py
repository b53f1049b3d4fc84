"""Makers: stages that do what training cannot, such as reading weights and writing files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import set_random_seed

from mmkd.chain.product import Product
from mmkd.names import did_you_mean
from mmkd.options import read_options
from mmkd.registry import MAKERS
from mmkd.untouched import untouched_random_state


class Maker:
    """Base of makers. A subclass is registered in ``MAKERS``; ``__init__`` takes its options.

    ``make=dict(type='mmkd.Name', option=…)`` is a stage of a chain; ``mmkd make Name option=…``
    runs it alone, see :func:`run_maker`. It runs in the process of rank 0 only, and after a kill
    again from the beginning, so it overwrites what an earlier call left behind.
    """

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        """Write files into ``work_dir``.

        Args:
            given (Mapping[str, Product]): what the stage refers to, by role: ``'teacher'``,
                ``'teacher.a'``, ``'student'``. ``checkpoint`` is the file that the reference means.
            work_dir (str): folder of the stage; exists.
        """
        raise NotImplementedError


def build_maker(entry: Mapping[str, Any]) -> Maker:
    """The maker of ``dict(type=…, …)``.

    Raises:
        ValueError: no type, one that is no maker, options that it does not take or that it lacks.
    """
    kind = str(entry.get('type') or '')
    found = MAKERS.get(kind if '.' in kind else f'mmkd.{kind}') if kind else None
    if found is None:
        known = sorted(MAKERS.module_dict)
        hint = did_you_mean(kind.rpartition('.')[2], known)
        raise ValueError(f'There is no maker {kind!r}.{hint} Makers: {", ".join(known) or "none"}.')
    try:
        options = read_options(found, entry)
    except TypeError as error:
        raise ValueError(
            f'Maker {error} mmkd make takes them as KEY=VALUE, a stage in make=dict(type=…, …).'
        ) from None
    return found(**options)


def run_maker(maker: Maker, given: Mapping[str, Product], work_dir: str) -> Product:
    """Call a maker with random numbers of the seed 0, so that it makes the same every time.

    Initial weights and random transforms of training images are drawn from them.
    """
    with untouched_random_state():
        set_random_seed(0)
        return maker(given, work_dir)
