"""The network in a checkpoint as it is deployed, and how its weights were rounded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmkd.adapters.fake_quant import Rounding, bake, beside
from mmkd.checkpoint import read_checkpoint
from mmkd.checkpoint.edit_record import EditRecord
from mmkd.checkpoint.weights import EDITS, weights_in
from mmkd.config import distils
from mmkd.deployment.whole_numbers import Whole, roundings, to_whole
from mmkd.edits import FakeQuant
from mmkd.engine.student_config import model_for
from mmkd.students import build_edit, in_weights, is_edited
from mmkd.teacher import build_model, load_strictly


def deployed_model(config: Config, checkpoint: str) -> nn.Module:
    """The student with the saved weights, which its layers do not round again.

    Raises:
        ValueError: weights that do not fit.
    """
    built = _build(config, _beside_weights)
    load_strictly(built, checkpoint, [rf'^{EDITS}'], who='export')
    return built


def _build(config: Config, keep: Callable[[Any], Any]) -> nn.Module:
    """The student with what ``keep`` leaves of each of its edits, None for nothing."""
    model = model_for(config)
    if is_edited(model):
        kept = [part for entry in model.edits if (part := keep(entry)) is not None]
        model = ConfigDict(type='mmkd.Edited', model=model.model, edits=kept)
    return build_model(Config(dict(model=model, default_scope=config.get('default_scope'))))


def _beside_weights(entry: Any) -> Any:
    """What of an edit the saved weights do not carry; None where they carry all."""
    edit = build_edit(entry)
    if in_weights(edit):
        return None
    return dict(entry, bits=None) if isinstance(edit, FakeQuant) else entry


def whole_weights(config: Config, checkpoint: str, model: nn.Module) -> dict[str, Whole]:
    """The weights that were trained with few bits, by the name of their layer.

    Args:
        model (nn.Module): of :func:`deployed_model`.

    Raises:
        ValueError: see :func:`~mmkd.deployment.whole_numbers.to_whole`.
    """
    saved = read_checkpoint(checkpoint)
    edits = _edits_in(saved) or _edits_of(config)
    found: dict[str, Rounding] = {}
    if edits:
        twin = _build(config, lambda entry: None if _is_fake_quant(entry) else entry)
        found = roundings(twin, edits)
    numbers, layers = weights_in(saved), dict(model.named_modules())
    return {
        name: to_whole(name, layers[name].weight.detach(), rounding, _steps(numbers, name))
        for name, rounding in found.items()
    }


def rounded_model(model: nn.Module, bits: int) -> tuple[nn.Module, dict[str, Whole]]:
    """A copy with weights rounded after training, symmetric by channel, and as whole numbers.

    Args:
        model (nn.Module): of :func:`deployed_model`; unchanged.
        bits (int): of each weight; the first layer and those that predict have 8.
    """
    edited, plain = copy.deepcopy(model), copy.deepcopy(model)
    found = roundings(edited, [dict(type='mmkd.FakeQuant', bits=bits)])
    state = edited.state_dict()
    plain.load_state_dict(state | bake(edited, state))
    layers = dict(plain.named_modules())
    return plain, {
        name: to_whole(name, layers[name].weight.detach(), rounding)
        for name, rounding in found.items()
    }


def _steps(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    return state.get(f'{EDITS}{beside(name)}.step')


def _edits_in(saved: Mapping[str, Any]) -> list[Any]:
    """FakeQuant edits of the student, as the checkpoint has them."""
    return [entry for entry in EditRecord.read(saved).of('student') if _is_fake_quant(entry)]


def _edits_of(config: Config) -> list[Any]:
    """Those of the config, for a checkpoint without them, such as the best."""
    model = config.model
    student = model['student'] if distils(model) else model
    entries = [*(student.get('edits') or ()) * is_edited(student)]
    entries += [*(model.get('edits') or ()) * distils(model)]
    return [entry for entry in entries if _is_fake_quant(entry)]


def _is_fake_quant(entry: Any) -> bool:
    edit = build_edit(entry) if isinstance(entry, Mapping) else None
    return isinstance(edit, FakeQuant)
