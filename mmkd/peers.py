"""Networks that learn beside the student, from the same images, each with a life of its own."""

from __future__ import annotations

from collections.abc import Mapping
from logging import WARNING
from typing import Any

from mmengine.dist import is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.config import model_of, with_preprocessor
from mmkd.generators import Stream
from mmkd.names import check_part_name
from mmkd.pixels import Pixels, fitted
from mmkd.plan.probe import run_to_taps
from mmkd.tap import Recorder, Side, Tap
from mmkd.teacher import build_model
from mmkd.trains import keep_alive
from mmkd.untouched import at_rest


class Peers(nn.ModuleDict):
    """The peers of a student by name, children ``peers.<name>`` of the Distiller.

    A peer sees the student's batch in its own normalisation, and computes its own losses, which are
    logged as ``peer.<name>.<key>``. It draws from random streams of its own, so that the student's
    run is the same with and without it.

    Args:
        entries (Mapping | None): a model mapping, a path of a config or a built model each.
        preprocessor (dict | None): data preprocessor of the run, for model mappings without one.

    Raises:
        TypeError: no mapping, or an entry that is no model.
        ValueError: a name that log keys or checkpoints cannot have.
    """

    def __init__(
        self, entries: Mapping[str, Any] | None = None, preprocessor: dict | None = None
    ) -> None:
        super().__init__()
        if not isinstance(entries or {}, Mapping):
            raise TypeError(
                f'peers must be a mapping, dict(other=dict(type=…)), found {entries!r}.'
            )
        if entries is not None and not entries:
            text = 'peers={} is empty: nobody trains beside the student. Leave it out, or name one.'
            print_log(text, 'current', WARNING)
        self.streams: dict[str, Stream] = {}
        self.recorders: dict[str, Recorder] = {}
        self.pixels: dict[str, Pixels] = {}
        for name, entry in dict(entries or {}).items():
            if entry is None:  # merged away by a child config
                continue
            check_peer(name, entry)
            self.streams[name] = Stream()
            with self.streams[name]:
                self[name] = build_model(with_preprocessor(entry, preprocessor))
            self.pixels[name] = Pixels.of(self[name])

    def listen(self, name: str, taps: list[Tap]) -> None:
        """Record these places of a peer in every step."""
        self.recorders[name] = Recorder(self[name], taps)

    def init_weights(self) -> None:
        """Initialise each peer by its own config, from its own random streams."""
        for name, network in self.items():
            with self.streams[name]:
                network.init_weights()

    def step(
        self,
        name: str,
        inputs: Tensor,
        samples: list,
        source: Pixels,
        rests: list[Tap] | None = None,
    ) -> tuple[dict[str, Any], tuple[Side, list]]:
        """Run a peer on the student's batch.

        Args:
            inputs (Tensor): (N, C, H, W), as the student takes it.
            samples (list): its data samples, with ground truth.
            source (Pixels): the student's.
            rests (list[Tap] | None): it does not train in this step, and is looked at here.

        Returns:
            tuple: losses under their log keys; the record, with the peer's own samples.
        """
        inputs, samples = fitted(self.pixels[name], inputs, samples, source)
        with self.streams[name], self.recorders[name].record(inputs) as side:
            if rests is not None:
                return self._rest(name, inputs, samples, rests), (side, samples)
            losses = self[name](inputs, samples, mode='loss')
        return {f'{peer_key(name)}.{k}': v for k, v in losses.items()}, (side, samples)

    def _rest(self, name: str, inputs: Tensor, samples: list, taps: list[Tap]) -> dict[str, Tensor]:
        if taps:
            with at_rest(self[name]):
                run_to_taps(self[name], taps, inputs, samples)
        alone = not is_distributed()  # else DDP waits for every gradient
        key = f'{peer_key(name)}.zero_loss'
        return {} if alone else keep_alive(key, self[name].parameters())


def check_peer(name: Any, entry: Any) -> None:
    """Refuse a name that log keys or checkpoints cannot have, and what is no model.

    Raises:
        TypeError: an entry that is no model.
        ValueError: an unsuitable name.
    """
    check_part_name('peer', name, hasattr(nn.ModuleDict, str(name)))
    try:
        if not isinstance(entry, (str, nn.Module)):
            model_of(entry)
    except TypeError as error:
        hint = ''
        if isinstance(entry, Mapping) and 'checkpoint' in entry:
            hint = (
                " It starts from its model's init_cfg, dict(type='Pretrained', checkpoint=…), and "
                'has no checkpoint of its own.'
            )
        raise TypeError(f"peer '{name}': {error}{hint}") from None


def peer_key(name: str) -> str:
    """Name of a peer's optimiser, formed like those of its losses."""
    return f'peer.{name}'
