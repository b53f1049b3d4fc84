"""Edits are built from a config, called one after the other, and held to what they claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmkd.checkpoint.weights import EDITS
from mmkd.edits.checking import ROUNDING, largest_difference, outputs
from mmkd.students import Edit, build_edit, in_weights, name_of
from mmkd.untouched import untouched_random_state

#: what an edit may promise of the outputs: equal, of equal shapes, nothing
CLAIMS = ('same', 'shapes', 'none')


@dataclass(frozen=True)
class Made:
    """An edit that was made.

    Attributes:
        name (str): its class.
        entry (dict | Callable): as the config has it.
        in_weights (bool): the saved weights carry all of it.
        line (str): what it did, for a plan.
    """

    name: str
    entry: Any
    in_weights: bool
    line: str


def made_in(model: nn.Module) -> list[Made]:
    """The edits that a network went through, in their order."""
    return list(getattr(model, 'edits_made', ()))


def apply_edits(model: nn.Module, edits: Any) -> nn.Module:
    """Call edits one after the other, without moving any random stream.

    Args:
        edits (list[dict | Callable] | None): such as ``[dict(type='mmkd.FakeQuant', bits=4)]``.

    Raises:
        TypeError: something that is no list, or no edit.
        ValueError: an edit that does not suit the network, or does not do what it claims.
    """
    if isinstance(edits, (str, Mapping)) or not isinstance(edits or (), Sequence):
        raise TypeError(f"edits must be a list, [dict(type='mmkd.FakeQuant', …)], found {edits!r}.")
    for entry in edits or ():
        with untouched_random_state():
            edit = build_edit(entry)
            before, known = made_in(model), set(model.state_dict())
            model, line = _held_to_its_claim(edit, model)
            _check_keys(edit, known, model)
        made = Made(name_of(edit), entry, in_weights(edit), line)
        model.edits_made = [*before, made]  # type: ignore[assignment]
    return model


def _held_to_its_claim(edit: Edit, model: nn.Module) -> tuple[nn.Module, str]:
    """The edited network, and what the edit did to its outputs."""
    name, claim = name_of(edit), getattr(edit, 'claims', 'none')
    if claim not in CLAIMS:
        raise ValueError(f'{name}: claims must be one of {list(CLAIMS)}, found {claim!r}.')
    size, before, reason = 0, {}, ''
    if claim != 'none':
        try:
            size, before = outputs(model)
        except Exception as error:  # noqa: BLE001  the network's own, which need not run here
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'.rstrip('.: ')
    model = edit(model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f'{name} returned {type(model).__name__}; an edit returns the network, changed or new.'
        )
    told = edit.describe() if hasattr(edit, 'describe') else ''
    lines = [told] if told else []
    if reason:
        text = f'claims {claim!r}, which could not be checked ({reason})'
        print_log(f'{name} {text}.', 'current', WARNING)
        lines.append(text)
    elif claim != 'none':
        gap = _difference(name, claim, before, outputs(model, size)[1])
        lines.append(f'outputs differ by at most {gap:.3g}')
    return model, '; '.join(lines) or 'nothing is claimed of the outputs'


def _difference(name: str, claim: str, before: dict, after: dict) -> float:
    promise = 'outputs of equal shape' if claim == 'shapes' else 'to change no output'
    try:
        gap, where = largest_difference(before, after)
    except ValueError as error:
        raise ValueError(
            f'{name} claims {promise}, but {error}. Name the layers that it leaves alone, or let '
            "it claim less (claims='none')."
        ) from None
    if claim == 'same' and not gap <= ROUNDING:
        raise ValueError(
            f'{name} claims {promise}, but those of {where} differ by up to {gap:.3g} on a probe '
            f'image, and rounding explains {ROUNDING:g}. Look for a consumer of a changed layer '
            "that it leaves out, or let it claim less (claims='shapes')."
        )
    return gap


def _check_keys(edit: Edit, known: set[str], model: nn.Module) -> None:
    """Whose work is in the weights alone must leave the plain model's keys as they are."""
    found = {key for key in model.state_dict() if not key.startswith(EDITS)}
    known = {key for key in known if not key.startswith(EDITS)}
    if in_weights(edit) and (odd := sorted(found ^ known)):
        raise ValueError(
            f'{name_of(edit)} says that the saved weights carry all of it (in_weights), but it '
            f'renames or adds {", ".join(odd[:3])}. Keep the names of the plain model, or set '
            'in_weights=False, so that the config of the student has the edit.'
        )
