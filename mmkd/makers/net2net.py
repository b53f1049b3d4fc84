"""Net2Net: a trained network made wider and deeper, which computes what it did."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.chain import Maker, Product
from mmkd.edits import apply_edits
from mmkd.edits.checking import outputs
from mmkd.edits.choosing import Choice
from mmkd.edits.deepen import IdentityLayer
from mmkd.engine.console.screen import current_screen
from mmkd.makers.channel_groups import Group, graph_groups, inner_groups
from mmkd.makers.chosen_channels import chosen_state
from mmkd.makers.networks import load_for_reshaping
from mmkd.makers.pictures import training_batches
from mmkd.makers.reshaped import write_reshaped
from mmkd.options import check_choice, check_list, check_number
from mmkd.plan.probe import run_to_taps
from mmkd.registry import MAKERS
from mmkd.tap import Recorder, Tap
from mmkd.untouched import at_rest

#: largest difference that is rounding of weights to float32, as a share of the largest output
ROUNDING = 1e-5


@MAKERS.register_module()
class Net2Net(Maker):
    """Net2Net: accelerating learning via knowledge transfer.

    Chen et al., ICLR 2016, sections 2.2 and 2.3. Wider: channels are taken twice, at random, with
    their BatchNorm, and who reads them shares its weights among the copies. Deeper: layers that are
    the identity, in training too, as far as batches have the statistics of the images from which
    their BatchNorms are set. The result computes what the network did, and a check in float64 says
    how nearly. Train it at a tenth of the learning rate. ``grown.py`` builds the network,
    ``grown.pth`` has its weights.

    Args:
        widen (float): factor of widths, at least 1.
        where (str): ``'all'``, backbone, neck and dense heads, by the graph of torch-pruning;
            ``'inner'``, between the convolutions of residual blocks.
        skip (list[str]): names of modules whose channels stay.
        deepen (list[str]): stages that get a layer, see :class:`~mmkd.edits.deepen.Deepen`.
        noise (float): noise on the weights of widened layers, as a share of their standard
            deviation; breaks the ties of copies, which else get equal gradients.
        images (int): of the training set, for the BatchNorms of new layers.
        seed (int): of copies and noise.

    Raises:
        ValueError: options out of range; not one network; one that would not compute the same.
    """

    def __init__(
        self,
        widen: float = 1,
        where: str = 'all',
        skip: Sequence[str] = (),
        deepen: Sequence[str] = (),
        noise: float = 0,
        images: int = 64,
        seed: int = 0,
    ) -> None:
        self.widen = check_number('Net2Net', 'widen', widen, 1)
        self.where = check_choice('Net2Net', 'where', where, ('all', 'inner'))
        self.skip = check_list('Net2Net', 'skip', skip)
        self.deepen = check_list('Net2Net', 'deepen', deepen)
        self.noise = check_number('Net2Net', 'noise', noise, 0)
        self.images = check_number('Net2Net', 'images', images, 1, whole=True)
        self.seed = check_number('Net2Net', 'seed', seed, 0, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_for_reshaping('Net2Net', given)
        model.eval()
        drawn = torch.Generator().manual_seed(self.seed)
        state, sizes = self.wider(model, drawn) if self.widen > 1 else (model.state_dict(), {})
        edits: list[dict] = [dict(type='mmkd.Widths', sizes=sizes)] if sizes else []
        if self.deepen:
            edits.append(dict(type='mmkd.Deepen', after=self.deepen))
        grown = apply_edits(copy.deepcopy(model), edits)
        grown.load_state_dict({**grown.state_dict(), **state})
        if self.deepen:
            set_identities(grown, training_batches(config, model, self.images))
        gap = preserved(model, grown)
        if self.noise:
            add_noise(grown, sizes, self.noise, drawn)
        product = write_reshaped(work_dir, 'grown', config, edits, grown.state_dict())
        before, after = (sum(p.numel() for p in one.parameters()) for one in (model, grown))
        noise = f', before noise of {self.noise:g}' if self.noise else ''
        current_screen().say(
            f'Net2Net: {before:,} to {after:,} parameters, outputs differ by at most {gap:.3g} in '
            f'float64{noise}.'
        )
        return product

    def wider(
        self, model: nn.Module, drawn: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
        """Weights and sizes of the wider network."""
        choice = Choice('Net2Net', (), self.skip)
        choice.check(model)
        groups = inner_groups(model) if self.where == 'inner' else graph_groups(model, 'Net2Net')
        chosen: list[tuple[Group, list[int]]] = []
        for group in groups:
            more = int(group.size * (self.widen - 1) + 0.5)
            if not group.fixed and more and all(choice.has(name) for name in group.givers()):
                copies = torch.randint(group.size, (more,), generator=drawn).tolist()
                chosen.append((group, [*range(group.size), *copies]))
        if not chosen:
            raise ValueError(
                f'Net2Net: no channels of {type(model).__name__} are left to widen with where='
                f'{self.where!r} and skip={self.skip}. Skip fewer modules.'
            )
        return chosen_state(model, chosen, divide=True)


@torch.no_grad()
def set_identities(model: nn.Module, batches: Any) -> None:
    """Set the BatchNorms of identity layers from what the layers get on images."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, IdentityLayer)}
    taps = {name: Tap.parse(f'{name}@in[0]') for name in layers}
    recorder = Recorder(model, taps.values())
    sums = {name: [0.0, 0.0, 0] for name in layers}
    for inputs, samples in batches:
        with at_rest(model), recorder.record(inputs) as side:
            run_to_taps(model, taps.values(), inputs, samples)
        for name, tap in taps.items():
            x = torch.cat(side.seen(tap)).double().transpose(0, 1).flatten(1)
            for place, value in enumerate((x.sum(1), x.square().sum(1), x.shape[1])):
                sums[name][place] += value
    for name, layer in layers.items():
        total, squares, count = sums[name]
        mean = total / count
        layer.calibrate(mean, (squares / count - mean**2).clamp_min(0))  # type: ignore[attr-defined]


def preserved(before: nn.Module, after: nn.Module) -> float:
    """Largest difference of the outputs of two networks in float64, where shapes are equal.

    Raises:
        ValueError: it is more than rounding.
    """
    size, old = outputs(copy.deepcopy(before).double())
    new = outputs(copy.deepcopy(after).double(), size)[1]
    gaps = {
        part: torch.stack([(x - y).abs().max() for x, y in zip(old[part], new[part], strict=True)])
        for part in old
        if [x.shape for x in old[part]] == [x.shape for x in new.get(part, ())]
    }
    most = max((float(x.abs().max()) for part in gaps for x in old[part]), default=0.0)
    worst = {part: float(found.max()) for part, found in gaps.items()}  # NaN stays
    wrong = [part for part, gap in worst.items() if not gap <= ROUNDING * max(most, 1)]
    if wrong or not gaps:
        where, gap = (wrong[0], worst[wrong[0]]) if wrong else (type(after).__name__, float('nan'))
        raise ValueError(
            f'Net2Net: outputs of {where} differ by up to {gap:.3g} in float64, so the network is '
            'not the same. Leave modules out (skip=) until it is.'
        )
    return max(worst.values())


@torch.no_grad()
def add_noise(
    model: nn.Module, sizes: Mapping[str, Any], share: float, drawn: torch.Generator
) -> None:
    """Noise on the weights of convolutions and linear layers that were widened."""
    for name, size in sizes.items():
        if len(size) == 2:
            weight: Any = model.get_submodule(name).weight
            weight += share * weight.std() * torch.randn(weight.shape, generator=drawn)
