"""Which trained parameters the first backward pass reaches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

#: names that a warning lists
SHOWN = 5


class Reached:
    """Records, from now on, every trained parameter of a model that gets a gradient."""

    def __init__(self, model: nn.Module) -> None:
        self.names: set[str] = set()
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.handles = [
            parameter.register_post_accumulate_grad_hook(self._noting(name))
            for name, parameter in self.trained.items()
        ]

    def _noting(self, name: str) -> Any:
        def note(_: Tensor) -> None:
            self.names.add(name)

        return note

    def finish(self, told: bool, resting: Iterable[nn.Parameter] = ()) -> None:
        """Stop recording, and report parameters without a gradient.

        Args:
            told (bool): the batch had ground truth, so that every head had something to learn.
            resting (Iterable[nn.Parameter]): whose turn it was not.

        Raises:
            RuntimeError: nothing of a whole part of the model was reached, such as the backbone.
        """
        for handle in self.handles:
            handle.remove()
        rests = {id(parameter) for parameter in resting}
        self.trained = {n: p for n, p in self.trained.items() if id(p) not in rests}
        for part, names in self._parts():
            lost = [name for name in names if name not in self.names]
            if lost and len(lost) == len(names) and told:
                raise RuntimeError(
                    f"no gradient reached any of the {len(names)} trained parameters of '{part}' "
                    'in the first step, so it does not learn. activation_checkpointing does that '
                    "to the part that gets the images: leave it out there, and use the backbone's "
                    'own with_cp=True. preflight=False skips this check.'
                )
            if lost:
                more = ', …' if len(lost) > SHOWN else ''
                print_log(
                    f"{len(lost)} of {len(names)} trained parameters of '{part}' got no gradient "
                    f'in the first step: {", ".join(lost[:SHOWN])}{more}',
                    logger='current',
                    level=WARNING,
                )

    def _parts(self) -> Iterator[tuple[str, list[str]]]:
        """Children of the model, and objectives, with their trained parameters."""
        parts: dict[str, list[str]] = {}
        for name in self.trained:
            depth = 2 if name.startswith('objectives.') else 1
            parts.setdefault('.'.join(name.split('.')[:depth]), []).append(name)
        yield from parts.items()
