"""One image through a network before training, to find the shapes at its taps in both modes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.families.mask_classes import words_left_out
from mmkd.families.two_stage import few_proposals
from mmkd.functional.nested import flatten
from mmkd.levels import Level
from mmkd.pixels import picture
from mmkd.route import run_route, shortest_route
from mmkd.tap import Recorder, Side, Tap, TapError
from mmkd.untouched import evaluation, untouched_random_state
from mmkd.untouched import training as training_mode

#: sides of the image, one after the other where a network cannot run on a smaller one
SIZES = (256, 512, 1024)
#: roots of taps that are reached without the heads
BODY = ('backbone', 'neck')


def probe(
    model: nn.Module,
    taps: Iterable[Tap],
    size: int = SIZES[0],
    training: bool = False,
    gradients: bool = False,
) -> Side:
    """Run a model once on one dummy image of ``size`` pixels square and record the taps.

    Args:
        training (bool): in train mode, where some networks give other maps.
        gradients (bool): what is recorded carries gradients.

    Raises:
        Exception: any error of the network.
    """
    taps = list(taps)
    image, dtype = picture(model, size), next(model.parameters()).dtype
    recorder, mode = Recorder(model, taps), training_mode if training else evaluation
    with (
        untouched_random_state(),
        torch.set_grad_enabled(gradients),
        mode(model),
        words_left_out(model),
        few_proposals(model),
        recorder.record(image) as side,
    ):
        run_to_taps(model, taps, image.to(dtype), dummy_samples(size))
    return side


def run_to_taps(model: nn.Module, taps: Iterable[Tap], image: Tensor, samples: list) -> None:
    """Run a network as far as the taps need, including a segmentor's auxiliary heads."""
    run_route(model, shortest_route(model, taps), image, samples)


def dummy_samples(size: int) -> list[BaseDataElement]:
    """One sample with the meta information that heads need in ``mode='tensor'``."""
    try:
        from mmdet.structures import DetDataSample as Sample
    except ImportError:
        Sample = BaseDataElement
    shape = (size, size)
    meta = dict(
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
        img_id=0,
    )
    return [Sample(metainfo=meta)]


def levels_at(side: Side, taps: Iterable[Tap]) -> list[Level] | None:
    """Shape and stride of every tensor at the taps, None if one of them was not reached.

    A method that only training calls, such as ``get_targets()``, is not waited for, and an argument
    that is None, such as the mask of an image without padding, has no shape.

    Raises:
        TapError: an index that selects nothing.
    """
    taps = [tap for tap in taps if side.raw(tap) or not tap.call]
    taps = [tap for tap in taps if {type(value) for value in side.raw(tap)} != {type(None)}]
    if not all(side.raw(tap) for tap in taps):
        return None
    return [Level.of(tensor, side.inputs, tap) for tap in taps for tensor in side[tap]]


@dataclass
class Found:
    """Results of the probe of one network.

    Attributes:
        who (str): ``'student'`` or the teacher's name, for messages.
        model (nn.Module): the network.
        taps (list[Tap]): the requested taps.
        size (int): side of the image.
        evaluated, trained (Side | None): records in eval and in train mode.
        reason (str): the error that stopped the network; empty without one.
    """

    who: str
    model: nn.Module
    taps: list[Tap]
    size: int
    evaluated: Side | None = None
    trained: Side | None = None
    reason: str = ''

    def levels(self, taps: Sequence[Tap]) -> list[Level] | None:
        """Shapes as a training step delivers them, None where the taps were not reached.

        Raises:
            TapError: an index that selects nothing.
        """
        if self.trained is not None and not self._silent(taps):
            found = levels_at(self.trained, taps)
            if found is not None:
                return found
        return None if self.evaluated is None else levels_at(self.evaluated, taps)

    def _silent(self, taps: Sequence[Tap]) -> bool:
        """Whether one that evaluation shows is not reached in train mode, where heads of DETRs need
        ground truth."""
        assert self.trained is not None
        shown = [tap for tap in taps if self.evaluated is not None and self.evaluated.raw(tap)]
        return any(not self.trained.raw(tap) for tap in shown)

    def copies(self) -> float:
        """Maps that the backbone makes of each image, if it was probed; else 1."""
        side = self.trained or self.evaluated
        if side is None:
            return 1
        tensors = [t for t in flatten(side.raw('backbone')) if t.dim() == 4]
        rows = {len(tensor) / len(side.inputs) for tensor in tensors}
        return rows.pop() if len(rows) == 1 else 1

    def explain(self, taps: Sequence[Tap]) -> list[str]:
        """Notes on the probe of these taps, for error messages."""
        lines = [line for tap in taps if (line := self.differs(tap))]
        reached = self.evaluated and all(self.evaluated.raw(tap) or tap.call for tap in taps)
        if self.reason and not reached:
            lines.append(f'The probe of the {self.who} stopped: {self.reason}.')
        return lines

    def differs(self, tap: Tap) -> str:
        """How training and evaluation differ at a tap; empty where they do not."""
        modes = self._modes(tap)
        trained, evaluated = ([str(level) for level in levels] for levels in modes)
        if not trained or not evaluated or trained == evaluated:
            return ''
        return (
            f"In training the {self.who}'s '{tap}' gives {' and '.join(trained)}, in evaluation "
            f'{" and ".join(evaluated)}.'
        )

    def of_evaluation(self, tap: Tap) -> str:
        """Tap that gives in training the map of this one in evaluation; empty if none is unique."""
        whole = Tap.parse(tap.source)
        trained = [str(level) for level in self._modes(whole)[0]]
        wanted = [str(level) for level in self._modes(tap)[1]]
        places = [i for i, level in enumerate(trained) if level in wanted]
        return f'{tap.source}[{places[0]}]' if len(places) == len(wanted) == 1 else ''

    def _modes(self, tap: Tap) -> tuple[list[Level], list[Level]]:
        """Levels at a tap in training and in evaluation, none where a mode was not probed."""
        found = []
        for side in (self.trained, self.evaluated):
            try:
                found.append(levels_at(side, [tap]) or [] if side else [])
            except TapError:
                found.append([])
        return found[0], found[1]


@dataclass
class Request:
    """A network to be probed; in train mode too, if it is the one that trains."""

    who: str
    model: nn.Module
    taps: list[Tap] = field(default_factory=list)
    trains: bool = False

    def run(self, size: int) -> Found:
        """Probe it with images of ``size`` pixels; an exception becomes the reason.

        Raises:
            TapError: misspelt taps.
        """
        found = Found(self.who, self.model, self.taps, size)
        if not self.taps:
            return found
        Recorder(self.model, self.taps)  # misspelt taps are, whatever happens in the forward
        found.evaluated, found.reason = _attempt(self.model, self.taps, size, False)
        body = [tap for tap in self.taps if tap.path.split('.')[0] in BODY]
        if found.evaluated is None and body:  # what lies in front of a head that cannot run
            found.evaluated = _attempt(self.model, body, size, False)[0]
        if self.trains and found.evaluated is not None:
            found.trained = _attempt(self.model, self.taps, size, True)[0]
            if found.trained is None and body:
                found.trained = _attempt(self.model, body, size, True)[0]
        return found


def _attempt(
    model: nn.Module, taps: list[Tap], size: int, training: bool
) -> tuple[Side | None, str]:
    try:
        return probe(model, taps, size, training), ''
    except TapError:
        raise
    except Exception as error:
        return None, f'{type(error).__name__}: {" ".join(str(error).split())}'.rstrip('.: ')


def probe_all(requests: Sequence[Request]) -> list[Found]:
    """Probe several networks with an image of one size, the first at which all of them run.

    Strides are read off the shapes, so student and teacher have to see the same size.
    """
    best: list[Found] = []
    last: list[str] = []
    for size in sizes_for([request.model for request in requests]):
        found = [request.run(size) for request in requests]
        reasons = [one.reason for one in found]
        if not best or sum(map(bool, reasons)) < sum(bool(one.reason) for one in best):
            best = found
        if not any(reasons) or reasons == last:  # the same words at another size: not the size
            break
        last = reasons
    return best


class Probes:
    """:func:`probe_all`, once for each place of each network."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], list[Found]] = {}

    def __call__(self, requests: Sequence[Request]) -> list[Found]:
        """Results for these networks, which are probed again for new taps."""
        key = tuple(id(request.model) for request in requests)
        known = self.known.get(key, [])
        for request, one in zip(requests, known, strict=False):
            have = {tap.source for tap in request.taps}
            request.taps = [*request.taps, *(t for t in one.taps if t.source not in have)]
        places = [[{tap.source for tap in x.taps} for x in xs] for xs in (requests, known)]
        if places[0] != places[1]:
            self.known[key] = known = probe_all(requests)
        return known


Result = TypeVar('Result')


def first_that_runs(sizes: Iterable[int], run: Callable[[int], Result]) -> tuple[int, Result]:
    """The first size of an image at which ``run(size)`` raises nothing, and what it returns.

    Raises:
        Exception: that of the last size, if there is none.
    """
    reason: Exception | None = None
    for size in sizes:
        try:
            return size, run(size)
        except Exception as error:  # noqa: BLE001  a larger image may do
            reason = error
    raise reason  # type: ignore[misc]


def sizes_for(models: Iterable[nn.Module]) -> list[int]:
    """The size that anchors are made for, if known, then :data:`SIZES` and the models' own."""
    anchors, own = [], []
    for model in models:
        generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
        anchors += _sides(getattr(generator, 'input_size', None))
        crop = getattr(model, 'test_cfg', None) or {}
        own += _sides(crop.get('crop_size') if hasattr(crop, 'get') else None)
        own += _sides(getattr(getattr(model, 'data_preprocessor', None), 'size', None))
    first, *larger = SIZES
    return list(dict.fromkeys([*anchors, first, *sorted(own), *larger]))


def _sides(size: Any) -> list[int]:
    """The longer side of ``512`` or ``(512, 1024)``, as a list of one."""
    if isinstance(size, (list, tuple)) and size:
        size = max(size)
    return [int(size)] if isinstance(size, (int, float)) and size > 0 else []
