"""Partial loading of weights: those that fit are loaded, the others are reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from logging import INFO, WARNING

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import checkpoint as mm
from torch import nn

from mmkd.checkpoint.finite_weights import refuse_not_finite
from mmkd.checkpoint.fitting import COUNTER, Fit, load_weights, weights_for
from mmkd.checkpoint.weights import BESIDE, below, weights_in


def load_some(
    model: nn.Module,
    checkpoint: Mapping,
    source: str,
    who: str = 'load_from',
    prefix: str = '',
    strict: bool = False,
) -> None:
    """Load the weights that fit; logs one line if all do, three if not.

    Args:
        checkpoint (Mapping): however its weights are wrapped.
        source (str): its file, for messages.
        who (str): the caller, for messages.
        prefix (str): that was taken off already.

    Raises:
        ValueError: nothing fits, or with ``strict`` not all; trained on pixels of another mean.
    """
    state, found = weights_for(model, checkpoint, source)
    refuse_not_finite(state, source, model)
    fit = load_weights(model, state)
    missing = [key for key in fit.missing if not key.startswith(BESIDE)]
    fit = replace(fit, missing=missing, total=fit.total - len(fit.missing) + len(missing))
    lost, own = {*fit.missing, *fit.shapes}, [k for k in model.state_dict() if _says_much(k)]
    if all(key in lost for key in own):
        raise ValueError(_nothing_fits(fit, list(state), own, f'{who} {source}'))
    if fit.pixels:
        raise ValueError(
            f'{who} {source}: {"; ".join(fit.pixels)}. Pixels look different to the network then: '
            "set data_preprocessor to the file's, or, to learn from other pixels on purpose, take "
            f'the weights alone: python -m mmkd.checkpoint.extract {source} weights.pth'
        )
    lines = fit.without([COUNTER]).lines()
    count = f'all {fit.total}' if not lost else f'{fit.loaded} of {fit.total}'
    under = f", found under '{prefix or found}'" if prefix or found else ''
    head = f'{who} {source}: {count} weights of {fit.model} were loaded{under}'
    text = '\n'.join([head, *lines[:1], *(['; '.join(lines[1:])] if lines[1:] else [])])
    if strict and lines:
        raise ValueError(f'load_checkpoint(strict=True) wants all weights, but {text}')
    print_log(text, logger='current', level=WARNING if lines else INFO)


def _says_much(key: str) -> bool:
    return not (re.search(COUNTER, key) or key.startswith(BESIDE))


def _nothing_fits(fit: Fit, keys: list[str], own: list[str], what: str) -> str:
    hint = 'Is it the checkpoint of another model?'
    if fit.part:
        hint = (
            f'They are those of its {fit.part} alone: give that '
            "init_cfg=dict(type='Pretrained', checkpoint=…) instead."
        )
    return (
        f'{what}: none of its {len(keys)} weights ({", ".join(keys[:2])}, …) fits '
        f'{fit.model}, which needs {", ".join(own[:2])}, …. {hint}'
    )


class Pretrained(PretrainedInit):
    """mmengine's ``init_cfg=dict(type='Pretrained')``, which reports what does not fit.

    Arguments are those of :class:`mmengine.model.PretrainedInit`: ``checkpoint``, ``prefix``,
    ``map_location``.

    Raises:
        CheckpointError: nothing lies under ``prefix``.
        ValueError: nothing fits the module.
    """

    def __call__(self, module: nn.Module) -> None:
        checkpoint = mm._load_checkpoint(self.checkpoint, self.map_location)
        if self.prefix is not None:
            prefix = self.prefix if self.prefix.endswith('.') else f'{self.prefix}.'
            checkpoint = dict(state_dict=below(weights_in(checkpoint), prefix, self.checkpoint))
        load_some(module, checkpoint, self.checkpoint, 'init_cfg')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    def _get_init_info(self) -> str:
        return f'PretrainedInit: load from {self.checkpoint}'
