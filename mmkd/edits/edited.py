"""``dict(type='mmkd.Edited', model=…, edits=[…])``: a plain model, edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from mmkd.config import with_preprocessor
from mmkd.edits.apply import apply_edits
from mmkd.registry import MODELS
from mmkd.teacher import build_model


@MODELS.register_module(name='Edited')
def edited(
    model: dict | nn.Module,
    edits: Sequence[dict | Callable[[nn.Module], nn.Module]],
    data_preprocessor: dict | None = None,
) -> nn.Module:
    """Build a model and call the edits one after the other; registered as ``mmkd.Edited``.

    The result is a model, not a wrapper: parameters keep the names that the edits give them.
    Without edits it is the model itself.

    Args:
        model (dict | nn.Module): model mapping of a plain config; of a Distiller its student.
        edits (list[dict]): such as ``dict(type='mmkd.Exits')``, see
            :func:`~mmkd.edits.apply.apply_edits`.
        data_preprocessor (dict | None): passed by the Runner from the top of a config; used if the
            model has none itself.

    Raises:
        ValueError: an edit that does not suit the model.
    """
    own = model.get('student', model) if isinstance(model, Mapping) else model
    with_preprocessor(own, data_preprocessor)
    return apply_edits(build_model(model), edits)
