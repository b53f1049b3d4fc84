"""Exits: the any-exit network of a classifier that was trained with BYOT or MultiExit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.exits import Exit, build_exits
from mmkd.checkpoint import CheckpointError
from mmkd.families import classifier
from mmkd.models import Classifier
from mmkd.plan.probe import levels_at, probe
from mmkd.registry import MODELS
from mmkd.rows.exits import check_cuts, positions
from mmkd.structures import ClassSample
from mmkd.tap import Side, Tap, parse_taps

_TRAINED = re.compile(r'objectives\.(\w+)\.exits\.(\d+)\.(.+)')


@MODELS.register_module()
class Exits:
    """Make a network with exits of a classifier, for the checkpoint of a training with exits.

    The exits that BYOT and MultiExit train lie under ``objectives.<name>.exits.`` in a checkpoint;
    the edited network reads them from there, and writes them as ``exits.`` or, of a single exit, as
    those of a plain classifier.

    Args:
        cuts (str | list[str] | None): as in training.
        use (str | int): ``'last'`` and ``'mean'``: an :class:`AnytimeClassifier` that predicts with
            its last exit or with the mean probabilities of all; a number: the exit of this number,
            from 0, alone, as a plain classifier whose backbone ends there.
        objective (str | None): name of the objective whose exits are meant, if a checkpoint has
            those of several.

    Raises:
        ValueError: another model than ``mmkd.Classifier``; unsuitable cuts; an unknown ``use``; a
            backbone that does not give the maps of its stages, or that cannot end behind one.
    """

    def __init__(
        self,
        cuts: Any = None,
        use: str | int = 'last',
        objective: str | None = None,
    ) -> None:
        self.cuts, self.use, self.objective = parse_taps(cuts), use, objective

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model itself, changed."""
        if not isinstance(model, Classifier):
            raise ValueError(
                f'Exits edits an mmkd.Classifier, found {type(model).__name__}; only classifiers '
                'are trained with exits.'
            )
        stages = parse_taps(classifier.stage_taps(model))
        cuts = self.cuts or stages[:-1]
        side = probe(model, [*cuts, *stages, Tap.parse('backbone')])
        check_cuts('Exits', side, cuts, stages)
        levels = levels_at(side, stages) or []
        places = positions('Exits', levels_at(side, cuts) or [], levels)
        exits = build_exits(places, levels, model.num_classes)
        known = ['last', 'mean', *range(len(exits))]
        if self.use not in known or isinstance(self.use, bool):
            raise ValueError(
                f'Exits: use must be one of {known}, found {self.use!r}: all exits, of which the '
                'last or the mean predicts, or the number of one.'
            )
        if isinstance(self.use, int):
            names = [stage.path.removeprefix('backbone.') for stage in stages]
            gone = _end_behind(model, places[self.use], exits[self.use], names, side, stages)
        else:
            _add(model, exits, [_output(side, stages[i]) for i in places], self.use)
            gone = []
        model.adopt = partial(
            _from_training, use=self.use, objective=self.objective, gone=tuple(gone)
        )
        model._register_load_state_dict_pre_hook(model.adopt)
        return model


class AnytimeClassifier(Classifier):
    """A classifier with exits; made by :class:`Exits`, with the plain one's parameter names.

    ``mode='tensor'`` gives the logits (N, K) of all exits, the network's own last. Predictions also
    have ``exit_scores`` (M, K), for ``mmkd.Accuracy(exits=True)``. ``mode='loss'`` is the last
    exit's loss.
    """

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Any:
        if mode not in ('tensor', 'predict'):
            return super().forward(inputs, data_samples, mode)
        maps = self.extract_feat(inputs)
        found = [branch(maps[i])[0] for i, branch in zip(self.outputs, self.exits, strict=True)]
        last = maps[-1] if self.projector is None else self.projector(maps[-1])
        found.append(self.head(self.pool(last)))
        if mode == 'tensor':
            return tuple(found)
        scores = torch.stack([z.float().softmax(1) for z in found], 1)
        chosen = scores.mean(1) if self.use == 'mean' else scores[:, -1]
        samples = data_samples or [ClassSample() for _ in chosen]
        rows = zip(samples, chosen, scores, strict=True)
        return [x.set_prediction(score).set_exit_scores(every) for x, score, every in rows]


def _add(model: nn.Module, exits: Sequence[Exit], outputs: Sequence[int], use: str) -> None:
    model.__class__ = AnytimeClassifier
    model.exits = nn.ModuleList(exits)
    model.outputs, model.use = tuple(outputs), use


def _output(side: Side, stage: Tap) -> int:
    """Position of a stage's map in what the backbone returns."""
    wanted = side[stage][0]
    for i, found in enumerate(side['backbone']):
        if found.shape == wanted.shape and torch.equal(found, wanted):
            return i
    raise ValueError(
        f"Exits reads the maps of stages from the backbone's outputs, but {stage} is not among "
        'them; set out_indices of the backbone so that it gives all stages.'
    )


def _end_behind(
    model: nn.Module, place: int, branch: Exit, names: list[str], side: Side, stages: Sequence[Tap]
) -> list[str]:
    """Leave the later stages out, and classify by this exit; names of what is gone."""
    for name in names[place + 1 :]:
        setattr(model.backbone, name, nn.Sequential(nn.Identity()))
    model.projector, model.head.fc = branch.blocks, branch.fc
    wanted, size = side[stages[place]][0], side.inputs.shape[-1]
    try:
        last = probe(model, [Tap.parse('backbone')], size)['backbone'][-1]
        ends = torch.equal(last, wanted)
    except RuntimeError:  # what follows the stages has another width
        ends = False
    if not ends:
        raise ValueError(
            f'Exits: a {type(model.backbone).__name__} does more between or behind its stages, so '
            f"it cannot end behind {stages[place]}; take use='last' or 'mean', which keep them all."
        )
    return [f'backbone.{name}.' for name in names[place + 1 :]]


def _from_training(
    state: dict,
    prefix: str = '',
    *unused: Any,
    use: str | int,
    objective: str | None,
    gone: tuple[str, ...],
) -> None:
    """Before loading: exits under the names that the edited network has for them."""
    own = 'projector.' if isinstance(use, int) else 'exits.'
    found = {key: match for key in state if (match := _TRAINED.fullmatch(key[len(prefix) :]))}
    names = sorted({match[1] for match in found.values()})
    if not names and any(key.startswith(prefix + own) for key in state):
        return  # of the edited network itself
    chosen = [name for name in names if objective in (None, name)]
    if len(chosen) != 1:
        what = f'those of {", ".join(names)}' if names else 'none'
        raise CheckpointError(
            f'Exits needs the exits of one objective, but the checkpoint has {what}; train with '
            'BYOT or MultiExit, and name the objective (objective=…) where there are several.'
        )
    renamed: dict[str, Tensor] = {}
    for key, match in found.items():
        if match[1] != chosen[0]:
            continue
        if not isinstance(use, int):
            renamed[f'{prefix}exits.{match[2]}.{match[3]}'] = state[key]
        elif int(match[2]) == use:
            part, _, rest = match[3].partition('.')
            where = {'blocks': 'projector', 'fc': 'head.fc'}[part]
            renamed[f'{prefix}{where}.{rest}'] = state[key]
    for key in [*state]:
        if key.startswith((prefix + 'objectives.', *(prefix + name for name in gone))):
            del state[key]
    state.update(renamed)
