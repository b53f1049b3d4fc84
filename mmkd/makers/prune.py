"""Prune: structured pruning of a trained network to a budget of multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mmkd.chain import Maker, Product
from mmkd.edits.choosing import Choice
from mmkd.engine.console.screen import current_screen
from mmkd.makers.channel_groups import Group, graph_groups, inner_groups
from mmkd.makers.chosen_channels import chosen_state, importance, products, strongest, uses_of
from mmkd.makers.networks import load_for_reshaping
from mmkd.makers.reshaped import write_reshaped
from mmkd.makers.stock_widths import stock_model
from mmkd.options import check_choice, check_list, check_number
from mmkd.registry import MAKERS

WHERE = ('all', 'backbone', 'inner')
#: halvings of the interval in which the budget's level lies
HALVINGS = 40
#: a divisor of all widths from which one share for all is fine enough: steps of 3 %
FINE = 32


@MAKERS.register_module()
class Prune(Maker):
    """Drop channels of a trained network that have the smallest weights, before it is distilled.

    Li et al., ICLR 2017 ("Pruning filters for efficient ConvNets"), for channels that several
    layers share (Fang et al., CVPR 2023, "DepGraph"): sums of residual blocks, their BatchNorms,
    and whatever reads them. How much a channel counts is the L1 norm of its weights, over the mean
    of its layer, averaged over the layers that give it. Predictions and what a head of RoIs reads
    keep their channels. ``pruned.py`` builds the network, ``pruned.pth`` has its weights: a plain
    config where the same share of each width is what options of stock modules can say
    (``base_channels``), else with the edit ``mmkd.Widths``. The graph is torch-pruning's
    (``pip install "mmkd[prune]"``).

    Args:
        macs (float | None): share of the multiply-accumulates that may stay, in (0, 1]; counted for
            one image of the probe, with four boxes where there is a head of RoIs.
        ratio (float | None): instead, the share of channels to drop, in [0, 1).
        where (str): ``'all'``, backbone, neck and dense heads; ``'backbone'``, what it alone gives;
            ``'inner'``, between the convolutions of residual blocks, without torch-pruning.
        mode (str): ``'uniform'``, the same share of each group, where all widths have a divisor of
            32 or more exactly the same; ``'global'``, the channels that count least anywhere.
        limit (float): largest share of one group that ``'global'`` drops.
        round_to (int): widths are multiples of it.
        skip (list[str]): names of modules whose channels stay.

    Raises:
        ValueError: options out of range; a budget that cannot be reached; not one network.
        ImportError: torch-pruning is not installed.
    """

    def __init__(
        self,
        macs: float | None = None,
        ratio: float | None = None,
        where: str = 'all',
        mode: str = 'uniform',
        limit: float = 0.75,
        round_to: int = 1,
        skip: Sequence[str] = (),
    ) -> None:
        if (macs is None) == (ratio is None):
            raise ValueError(
                'Prune: give macs, the share of multiply-accumulates that stays, or ratio, the '
                f'share of channels to drop; found macs={macs}, ratio={ratio}.'
            )
        self.macs = check_number('Prune', 'macs', macs, above=0, most=1, optional=True)
        self.ratio = check_number('Prune', 'ratio', ratio, 0, below=1, optional=True)
        self.where = check_choice('Prune', 'where', where, WHERE)
        self.mode = check_choice('Prune', 'mode', mode, ('uniform', 'global'))
        self.limit = check_number('Prune', 'limit', limit, above=0, below=1)
        self.round_to = check_number('Prune', 'round_to', round_to, 1, whole=True)
        self.skip = check_list('Prune', 'skip', skip)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_for_reshaping('Prune', given)
        groups = self.groups(model)
        free = [group for group in groups if not group.fixed]
        uses = uses_of(model)
        counts = self.counts(model, free, uses)
        chosen = [
            (group, strongest(group, model, count))
            for group, count in zip(free, counts, strict=True)
            if count < group.size
        ]
        state, sizes = chosen_state(model, chosen)
        edits = [dict(type='mmkd.Widths', sizes=sizes)] if sizes else []
        stock = None
        if chosen and self.mode == 'uniform' and self.where != 'inner':
            stock = stock_model(config, state, {group.size: len(keep) for group, keep in chosen})
        if stock is not None:
            config.model, edits = stock, []
        product = write_reshaped(work_dir, 'pruned', config, edits, state)
        self._tell(model, groups, chosen, uses)
        if stock is not None:
            current_screen().say('pruned.py is a plain config, with other widths.')
        return product

    def groups(self, model: nn.Module) -> list[Group]:
        """Channels of the network that exist only together; what must stay has a reason.

        Raises:
            ValueError: nothing to prune; a module in ``skip`` that does not exist.
        """
        choice = Choice('Prune', (), self.skip)
        choice.check(model)
        groups = inner_groups(model) if self.where == 'inner' else graph_groups(model, 'Prune')
        for group in groups:
            givers = group.givers()
            if self.where == 'backbone' and any(not x.startswith('backbone.') for x in givers):
                group.fixed = group.fixed or 'outside of the backbone'
            if not all(choice.has(name) for name in givers):
                group.fixed = group.fixed or 'in skip'
        if all(group.fixed for group in groups):
            raise ValueError(
                f'Prune: no channels of {type(model).__name__} are left with where='
                f'{self.where!r} and skip={self.skip}. Skip fewer modules.'
            )
        return groups

    def counts(self, model: nn.Module, groups: list[Group], uses: Mapping[str, int]) -> list[int]:
        """Channels of each group that stay.

        Raises:
            ValueError: the budget is below what is left with the fewest channels.
        """
        scores = [importance(group, model) for group in groups]
        if self.macs is None:
            return self._at(self._level(scores, self.ratio), groups, scores)
        whole = products(model, uses)

        def share(level: float) -> float:
            pairs = zip(groups, self._at(level, groups, scores), strict=True)
            return products(model, uses, [*pairs]) / whole

        if share(0) <= self.macs:
            return self._at(0.0, groups, scores)
        top = max(1.0, max(float(one.max()) for one in scores) + 1)
        if share(top) > self.macs:
            raise ValueError(
                f'Prune: {share(top):.1%} of the multiply-accumulates stay with the fewest '
                f'channels, more than macs={self.macs}. Skip fewer modules, prune more of the '
                "network (where='all'), or raise macs or limit."
            )
        low, high = 0.0, top
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if share(middle) <= self.macs else (middle, high)
        return self._at(high, groups, scores)

    def _level(self, scores: list[torch.Tensor], ratio: float) -> float:
        """What drops this share of all channels."""
        if self.mode == 'uniform':
            return ratio
        every = torch.cat(scores).sort().values
        count = int(ratio * len(every))
        return float(every[count - 1]) if count else 0.0

    def _at(self, level: float, groups: list[Group], scores: list[torch.Tensor]) -> list[int]:
        """Channels that stay where this share is dropped, or all that count no more than this."""
        found = []
        unit = math.gcd(*(group.size for group in groups)) if self.round_to == 1 else 1
        unit = unit if unit >= FINE else 1
        for group, score in zip(groups, scores, strict=True):
            if self.mode == 'uniform':
                share = 1 - min(level, 1.0)
                # Widths that stay multiples of each other are those of a narrower stock network.
                share = max(int(unit * share + 0.5), 1) / unit if unit > 1 else share
                stay = group.size * share
            else:
                stay = max(int((score > level).sum()), group.size * (1 - self.limit))
            whole = int(stay / self.round_to + 0.5) * self.round_to
            found.append(min(max(whole, self.round_to), group.size))
        return found

    def _tell(
        self, model: nn.Module, groups: list[Group], chosen: Sequence, uses: Mapping[str, int]
    ) -> None:
        before = products(model, uses)
        after = products(model, uses, [(group, len(keep)) for group, keep in chosen])
        widths = ', '.join(f'{g.name} {g.size} to {len(keep)}' for g, keep in chosen[:4])
        say = current_screen().say
        more = ', …' if len(chosen) > 4 else ''
        say(
            f'Prune: {after / before:.1%} of the multiply-accumulates stay ({before / 1e6:,.1f} M '
            f'to {after / 1e6:,.1f} M for the probe image), {len(chosen)} of {len(groups)} groups '
            f'of channels are smaller: {widths or "none"}{more}.'
        )
        for group in groups:
            if group.fixed:
                say(f'  {group.name} keeps its {group.size} channels: {group.fixed}')
