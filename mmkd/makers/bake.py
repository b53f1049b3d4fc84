"""Bake: edits of a trained network, written into its weights without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.adapters.fake_quant import bake, latent_modules
from mmkd.chain import Maker, Product
from mmkd.checkpoint.edit_record import EditRecord
from mmkd.edits import apply_edits, made_in
from mmkd.engine.console.screen import current_screen
from mmkd.makers.networks import load_network, write_network
from mmkd.options import check_list
from mmkd.registry import MAKERS
from mmkd.students import build_edit, in_weights, name_of


@MAKERS.register_module()
class Bake(Maker):
    """A trained network with edited weights, such as quantised after training.

    What a student that is trained with the edits is compared with. ``baked.py`` is the plain config
    and ``baked.pth`` the weights. ``mmkd make Bake edits.type=mmkd.FakeQuant edits.bits=4 --student
    CONFIG CHECKPOINT`` quantises to four bits.

    Args:
        edits (list[dict] | dict): such as ``[dict(type='mmkd.FakeQuant', bits=4)]``, or one edit.

    Raises:
        ValueError: not one network; an edit that does more than change weights.
    """

    def __init__(self, edits: Any) -> None:
        self.edits = [edits] if isinstance(edits, Mapping) else check_list('Bake', 'edits', edits)
        for edit in map(build_edit, self.edits):
            if not in_weights(edit):
                raise ValueError(
                    f'Bake writes weights, but {name_of(edit)} does more with these options '
                    '(in_weights=False). Train with it, or leave such options (acts) out.'
                )

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_network('Bake', given)
        known = list(model.state_dict())
        apply_edits(model, self.edits)
        for _, module in latent_modules(model):
            module.begin()
        for made in made_in(model):
            current_screen().say(f'{made.name}: {made.line}')
        state = model.state_dict()
        state.update(bake(model, state))
        record = EditRecord([['student', edit] for edit in self.edits])
        return write_network(work_dir, 'baked', config, {key: state[key] for key in known}, record)
