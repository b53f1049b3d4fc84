"""QuantisedMap: the step of a map, found on images, and the network with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.chain import Maker, Product
from mmkd.engine.console.screen import current_screen
from mmkd.functional.quantise import percentile, quantise, zeros_in
from mmkd.makers.networks import load_network, on_gpu
from mmkd.makers.pictures import training_batches
from mmkd.makers.reshaped import write_reshaped
from mmkd.options import check_number
from mmkd.plan.probe import run_to_taps
from mmkd.registry import MAKERS
from mmkd.tap import Recorder, Tap
from mmkd.untouched import at_rest

#: share of zeros above which nothing is left of a map
MOST_ZEROS = 0.99


@MAKERS.register_module()
class QuantisedMap(Maker):
    """A trained network with a map rounded to multiples of a step, before it is fine-tuned so.

    Second stage of Quantization Mimic (Wei et al., ECCV 2018): the step is the 99.9th percentile of
    the map's absolute values on training images, the largest over the maps of a pyramid, over 16.
    The paper does not give its step. ``quantised.py`` is the config of the network with the edit
    ``mmkd.QuantiseMap``, ``quantised.pth`` its weights, those of the stage's ``teacher=`` or
    ``student=``. Stages that start from it, and what listens to those, have the same step.

    Args:
        at (str): name of the module, such as ``'neck'`` or ``'backbone.layer4'``.
        images (int): how many are looked at.
        parts (float): the percentile is so many steps.
        step (float | None): instead of looking for one.
        signed (bool | None): also negative multiples; ``None``: if the map has negative values.
        levels (int | None): see :class:`~mmkd.edits.quantise_map.QuantiseMap`.

    Raises:
        ValueError: options out of range; not one network; a step that leaves 99 % zeros.
    """

    def __init__(
        self,
        at: str,
        images: int = 64,
        parts: float = 16,
        step: float | None = None,
        signed: bool | None = None,
        levels: int | None = None,
    ) -> None:
        self.at, self.signed, self.levels = at, signed, levels
        self.images = check_number('QuantisedMap', 'images', images, 1, whole=True)
        self.parts = check_number('QuantisedMap', 'parts', parts, above=0)
        self.step = check_number('QuantisedMap', 'step', step, above=0, optional=True)
        check_number('QuantisedMap', 'levels', levels, 2, whole=True, optional=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_network('QuantisedMap', given)
        step, signed = self._choose(self._maps(config, model))
        edit = dict(type='mmkd.QuantiseMap', at=self.at, step=step, signed=signed)
        if self.levels:
            edit['levels'] = self.levels
        return write_reshaped(work_dir, 'quantised', config, [edit], model.cpu().state_dict())

    def _choose(self, maps: list[list[Tensor]]) -> tuple[float, bool]:
        """Step and sign, reported, for the maps of some batches."""
        every = [x for batch in maps for x in batch]
        step = self.step
        if step is None:
            # Of each map over all images, as the largest of a pyramid counts.
            levels = zip(*maps, strict=True)
            tops = [percentile(torch.cat([x.flatten() for x in level])) for level in levels]
            step = float(torch.stack(tops).max()) / self.parts
        negative = sum(float((x < 0).sum()) for x in every) / sum(x.numel() for x in every)
        signed = negative > 0 if self.signed is None else self.signed
        if not step > 0:
            raise ValueError(
                f"QuantisedMap: 99.9 % of the values at '{self.at}' are 0, which gives no step. "
                'Take another place, or set step.'
            )
        zeros = zeros_in([quantise(x, step, signed, self.levels) for x in every])
        line = f"step {step:.4g} at '{self.at}', {zeros:.1%} of the values become 0"
        if zeros > MOST_ZEROS:
            raise ValueError(
                f'QuantisedMap: {line}, so there is hardly anything left. Choose a smaller step.'
            )
        current_screen().say(line)
        if negative > 0 and not signed:
            print_log(
                f"QuantisedMap: {negative:.1%} of the values at '{self.at}' are negative and are "
                'lost with signed=False.',
                logger='current',
                level=30,
            )
        return step, signed

    def _maps(self, config: Config, model: nn.Module) -> list[list[Tensor]]:
        """The maps at the place, of each batch."""
        tap = Tap.parse(self.at)
        recorder = Recorder(model, [tap])
        on_gpu(model)
        found = []
        for inputs, samples in training_batches(config, model, self.images):
            with at_rest(model), recorder.record(inputs) as side:
                run_to_taps(model, [tap], inputs, samples)
            found.append([x.cpu() for x in side[tap]])
        return found
