"""Maps the weights of a file to the names of a model, and compares them."""

from __future__ import annotations

import copy
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mmkd.checkpoint.checkpoint_error import CheckpointError
from mmkd.checkpoint.finite_weights import some
from mmkd.checkpoint.weights import BESIDE, weights_in

#: absent from old files, and read by no network in eval mode
COUNTER = r'num_batches_tracked$'
#: saved by versions of 2022; today a config says it
PIXELS = re.compile(r'(^|\.)data_preprocessor\.(mean|std)$')


@dataclass
class Fit:
    """How the weights of a file fit a model.

    Attributes:
        model (str): kind of model.
        total (int): weights of the model.
        missing (list[str]): of the model, not in the file.
        unexpected (list[str]): in the file, not in the model.
        shapes (dict[str, tuple]): of another shape: in the file and in the model.
        pixels (list[str]): sentences on a mean or std that is not the model's.
        prefix (str): under which the file has the weights.
        part (str): of the model, to which most of the file belongs on its own.
    """

    model: str
    total: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: dict[str, tuple] = field(default_factory=dict)
    pixels: list[str] = field(default_factory=list)
    prefix: str = ''
    part: str = ''

    @property
    def loaded(self) -> int:
        """How many weights of the model the file gave."""
        return self.total - len(self.missing) - len(self.shapes)

    def without(self, patterns: Iterable[str]) -> Fit:
        """The same, not counting keys that a pattern occurs in."""
        known = [re.compile(pattern) for pattern in patterns]

        def counts(keys: Iterable[str]) -> list[str]:
            return [key for key in keys if not any(p.search(key) for p in known)]

        return replace(
            self,
            missing=counts(self.missing),
            unexpected=counts(self.unexpected),
            shapes={key: self.shapes[key] for key in counts(self.shapes)},
            pixels=counts(self.pixels),
        )

    def lines(self, shown: int = 3) -> list[str]:
        """One for each kind of misfit, with examples."""
        wrong = [f'{k} (file {a}, model {b})' for k, (a, b) in self.shapes.items()]
        kinds = {
            'missing in the file': self.missing,
            'of another shape': wrong,
            'not in the model': self.unexpected,
        }
        found = [f'{len(k)} {name}: {some(k, shown)}' for name, k in kinds.items() if k]
        return [*found, *self.pixels]


def weights_for(model: nn.Module, checkpoint: Mapping, source: str) -> tuple[OrderedDict, str]:
    """The weights of a checkpoint under the model's names, and the prefix that they had.

    A prefix (``student.``, ``architecture.``, any other) is taken off if more weights fit without
    it, DDP's ``module.`` always. What mmkd's objectives and peers learned is left out for a model
    without any; one that reads some of it has an ``adopt`` (see mmkd.edits) that renames it first.

    Raises:
        CheckpointError: no weights; several parts of the file fit equally well.
    """
    own = {key: value.shape for key, value in _tensors(model.state_dict()).items()}
    raw = weights_in(checkpoint)
    if not any(key.startswith('module.') for key in own):
        raw = _renamed(raw, lambda key: key.removeprefix('module.'))
    if (adopt := getattr(model, 'adopt', None)) is not None:
        adopt(raw := copy.copy(raw))
    prefix = _prefix(raw, own, source, _kind(model))
    state = _renamed(raw, lambda key: key[len(prefix) :] if key.startswith(prefix) else None)
    if prefix:
        state.update((k, v) for k, v in raw.items() if k in own and k not in state)
    flat = {'ema_' + key.replace('.', '_') for key in own}  # averages, as of mmdet 2
    unused = {key for key in state if key in flat and key not in own}
    for beside in BESIDE:
        if not any(key.startswith(beside) for key in own):
            unused |= {key for key in state if key.startswith(beside)}
    for key in unused:
        del state[key]
    return state, prefix


def _renamed(state: OrderedDict, rename: Callable[[str], str | None]) -> OrderedDict:
    """Weights, and the versions of modules, under other names; those renamed to None are removed.

    By their versions modules know which layout a file has.
    """
    found = OrderedDict((rename(key), value) for key, value in state.items())
    found.pop(None, None)
    versions = OrderedDict()
    for key, value in getattr(state, '_metadata', {}).items():
        name = rename(f'{key}.' if key else '')
        if name is not None:
            versions[name.removesuffix('.')] = value
    if versions:
        found._metadata = versions  # type: ignore[attr-defined]
    return found


def _kind(model: nn.Module) -> str:
    return type(vars(model).get('student', model)).__name__  # a Distiller is its student here


def _tensors(state: Mapping) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def _prefix(raw: Mapping[str, Tensor], own: Mapping[str, torch.Size], source: str, who: str) -> str:
    fits: Counter[str] = Counter()
    for key, value in _tensors(raw).items():
        if not value.dim():
            continue  # counters say nothing
        starts = [0, *(match.end() for match in re.finditer(r'\.|^ema_', key))]
        fits.update(key[:i] for i in starts if own.get(key[i:]) == value.shape)
    most = max(fits.values(), default=0)
    best = [prefix for prefix, count in fits.items() if count == most]
    if not most or '' in best:
        return ''
    if not all(_same(raw, best[0], other) for other in best[1:]):
        names = ' and '.join(f"'{prefix}'" for prefix in best[:3])
        raise CheckpointError(
            f'{source}: its weights under {names} fit {who} equally well. Write those you mean '
            f'into a file of their own: python -m mmkd.checkpoint.extract {source} chosen.pth '
            f'--prefix {best[0]}'
        )
    return best[0]


def _same(raw: Mapping[str, Tensor], one: str, other: str) -> bool:
    """Whether everything under both prefixes is equal."""
    keys = [key[len(one) :] for key in raw if key.startswith(one)]
    return all(other + k in raw and torch.equal(raw[one + k], raw[other + k]) for k in keys)


def load_weights(model: nn.Module, state: Mapping, prefix: str = '') -> Fit:
    """Load the weights that fit and report the others, without raising.

    Args:
        state (Mapping): under the model's names, from :func:`weights_for`.
        prefix (str): for the report.
    """
    own = {k: tuple(v.shape) for k, v in _tensors(model.state_dict()).items()}
    found = {k: tuple(v.shape) for k, v in _tensors(state).items()}
    shapes = {k: (s, own[k]) for k, s in found.items() if k in own and s != own[k]}
    odd = {k: _oddity(v) for k, v in _tensors(state).items() if k in own}
    shapes |= {k: (what, own[k]) for k, what in odd.items() if what}
    pixels = {k for k in state if k not in own and PIXELS.search(k)}
    fitting = copy.copy(state)  # with the versions of modules, which may rename keys
    for key in {*shapes, *pixels}:
        fitting.pop(key)  # type: ignore[attr-defined]
    try:
        result = model.load_state_dict(fitting, strict=False)
        missing, unexpected = result.missing_keys, result.unexpected_keys
    except RuntimeError as error:  # renamed by a module, and then of another shape; the rest is in
        renamed = re.findall(r'size mismatch for (\S+):', str(error))
        if not renamed:
            raise
        shapes |= {key: ('?', own.get(key)) for key in renamed}
        missing, unexpected = (
            [k for k in own if k not in found],
            [k for k in found if k not in own],
        )
    return Fit(
        _kind(model),
        len(model.state_dict()),
        [key for key in missing if key not in shapes],
        list(unexpected),
        shapes,
        [text for key in sorted(pixels) for text in _other_pixels(model, key, state[key])],
        prefix,
        _part(model, found),
    )


def _oddity(tensor: Tensor) -> str:
    """Why a tensor cannot become a weight whatever its shape; '' if it can."""
    if tensor.layout != torch.strided:
        return 'sparse'
    return 'quantised' if tensor.is_quantized else 'complex' if tensor.is_complex() else ''


def _other_pixels(model: nn.Module, key: str, value: Tensor) -> list[str]:
    """A sentence if the model's mean or std differs from that in the file."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    own = getattr(preprocessor, key.rpartition('.')[2], None)
    if own is None or not getattr(preprocessor, '_enable_normalize', True):
        own = torch.zeros(1) if key.endswith('mean') else torch.ones(1)
    wanted, own = value.detach().float().cpu().flatten(), own.detach().float().cpu().flatten()
    if len(own) in (1, len(wanted)) and torch.allclose(wanted, own.expand_as(wanted), atol=0.01):
        return []
    numbers = [[round(x, 2) for x in values.tolist()] for values in (wanted, own)]
    return [f'trained with {key} = {numbers[0]}, the config has {numbers[1]}']


def _part(model: nn.Module, found: Mapping[str, tuple]) -> str:
    """Name of the child that the file is made for; '' if it is for none."""
    for name, child in model.named_children():
        own = {k: tuple(v.shape) for k, v in _tensors(child.state_dict()).items() if v.dim()}
        fits = sum(own.get(key) == shape for key, shape in found.items())
        if fits and 2 * fits > len(own):
            return name
    return ''


def mismatch_message(fit: Fit, source: str, lines: list[str], who: str) -> str:
    """What does not fit, line by line, and what it may be due to."""
    under = f" (its weights under '{fit.prefix}')" if fit.prefix else ''
    hint = 'Is it the checkpoint of this very config (depth, widths, number of classes, deep_stem)?'
    if fit.part:
        hint = f'It looks like the weights of a {fit.part} alone.'
    options = dict(teacher='teacher.ignore_keys', test='--ignore-keys')
    if who in options:
        hint += f' Single keys that may differ can be named in {options[who]}.'
    head = f'{who}: {source}{under} does not fit {fit.model}.'
    return '\n'.join([head, *(f'  {line}' for line in lines), hint])
