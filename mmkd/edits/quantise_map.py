"""QuantiseMap: a network whose map at one place is rounded to multiples of a step."""

from __future__ import annotations

import difflib

from torch import nn

from mmkd.adapters.quantised_output import QuantisedOutput, quantise_output
from mmkd.options import check_number
from mmkd.registry import MODELS


@MODELS.register_module()
class QuantiseMap:
    """Round the output of a module, as Quantization Mimic does with a teacher and its student.

    Wei et al., ECCV 2018: the maps behind it take the values 0, s, 2 s, … alone, in training (where
    gradients pass straight) and in deployment. ``mmkd make QuantisedMap`` finds s on images and
    writes the config. Parameters and their names stay, so that checkpoints are those of the plain
    network.

    Args:
        at (str): name of the module, such as ``'neck'`` or ``'backbone.layer4'``; all maps of a
            pyramid are rounded alike.
        step (float): s, above 0.
        signed (bool): also negative multiples, for maps that do not end in a ReLU (FPN).
        levels (int | None): values at or above 0; 2^b makes a map of b bits, whose largest value is
            ``s * (2^b - 1)``. ``None``, as in the paper: without a bound.

    Raises:
        ValueError: options out of range; no module of that name, or one that is rounded already.
    """

    def __init__(
        self, at: str, step: float, signed: bool = False, levels: int | None = None
    ) -> None:
        self.at, self.signed = at, signed
        self.step = float(check_number('QuantiseMap', 'step', step, above=0))
        self.levels = check_number('QuantiseMap', 'levels', levels, 2, whole=True, optional=True)

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        try:
            module = model.get_submodule(self.at)
        except AttributeError:
            names = [name for name, _ in model.named_modules() if name]
            near = ', '.join(difflib.get_close_matches(self.at, names, 3, 0.4)) or ', '.join(
                name for name, _ in model.named_children()
            )
            raise ValueError(
                f'QuantiseMap: {type(model).__name__} has no module {self.at!r}. Near-by names: '
                f'{near}.'
            ) from None
        if isinstance(module, QuantisedOutput):
            raise ValueError(f'QuantiseMap: the output of {self.at!r} is rounded already.')
        quantise_output(module, self.step, self.signed, self.levels)
        return model
