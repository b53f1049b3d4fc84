"""mmengine's own loaders read as mmkd does, from the moment mmkd is imported.

``init_cfg=dict(type='Pretrained')``, ``pretrained=``, ``load_checkpoint`` and all else in OpenMMLab
that asks mmengine for weights goes through its table of schemes. The loaders there run the code in
a file that cannot be read without.
"""

from __future__ import annotations

from typing import Any

from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import checkpoint as mm

from mmkd.checkpoint.finite_weights import refuse_not_finite
from mmkd.checkpoint.partial import Pretrained
from mmkd.checkpoint.reading import read_file


def load_from_mmkd(filename: str, map_location: Any = None) -> Any:
    """A loader for mmengine's table, for every scheme of mmengine.

    Raises:
        CheckpointError: as :func:`read_checkpoint`; weights that hold NaN or infinity.
    """
    found = read_file(filename, map_location)
    if isinstance(found, dict):
        refuse_not_finite(found.get('state_dict', found), filename)
    return found


def guard_stock_loaders() -> None:
    """Replace each of mmengine's loaders; those that other packages have added stay.

    So is what ``init_cfg=dict(type='Pretrained')`` does with the weights.
    """
    schemes = mm.CheckpointLoader._schemes
    stock = [name for name, loader in schemes.items() if loader.__module__ == mm.__name__]
    mm.CheckpointLoader.register_scheme(stock, load_from_mmkd, force=True)
    WEIGHT_INITIALIZERS.register_module('Pretrained', force=True, module=Pretrained)
