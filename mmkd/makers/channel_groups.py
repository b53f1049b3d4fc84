"""Channels of a network that only exist together, in several layers: what pruning has to keep."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd.edits.checking import outputs
from mmkd.functional.nested import flatten
from mmkd.pixels import picture
from mmkd.plan.probe import first_that_runs, sizes_for

OUT, IN, NORM = 'out', 'in', 'norm'
#: operations of autograd that give channels of their own
_PRODUCTS = ('Convolution', 'Addmm', 'Mm', 'Linear', 'MkldnnConvolution', 'Bmm')


@dataclass(frozen=True)
class Member:
    """One side of a layer that has the channels of a group.

    Attributes:
        name (str): of the module.
        side (str): ``'out'``, ``'in'`` or ``'norm'``, the one side of a BatchNorm.
        index (list[int]): its channels that are those of the group, channel by channel; several for
            each where a map was flattened.
    """

    name: str
    side: str
    index: list[int]


@dataclass
class Group:
    """Channels that several layers share.

    Attributes:
        size (int): number of channels.
        members (list[Member]): all layers that have them.
        fixed (str): why they cannot be chosen, if so.
    """

    size: int
    members: list[Member] = field(default_factory=list)
    fixed: str = ''

    @property
    def name(self) -> str:
        """Its first layer that gives the channels."""
        return next(one.name for one in self.members if one.side == OUT)

    def givers(self) -> list[str]:
        """Layers that give the channels."""
        return [one.name for one in self.members if one.side == OUT]


def inner_groups(model: nn.Module) -> list[Group]:
    """Channels between the convolutions of residual blocks: one BatchNorm and one reader each.

    The first convolution of a basic block, the first two of a bottleneck, and the BatchNorm that
    reads what they give, whatever its name. No graph is needed.

    Raises:
        ValueError: there is no such block.
    """
    pairs = [
        (f'{name}.conv{first}'.lstrip('.'), f'{name}.conv{first + 1}'.lstrip('.'))
        for name, block in model.named_modules()
        for first in (1, 2)
        if all(_is_plain(block._modules.get(f'conv{n}')) for n in (first, first + 1))
        and not getattr(block, 'with_plugins', False)
    ]
    behind = norms_behind(model) if pairs else {}
    groups = []
    for conv, reader in pairs:
        if conv in behind:
            every = [*range(model.get_submodule(conv).out_channels)]  # type: ignore[arg-type]
            sides = zip((conv, behind[conv], reader), (OUT, NORM, IN), strict=True)
            groups.append(Group(len(every), [Member(part, side, every) for part, side in sides]))
    if not groups:
        raise ValueError(
            f'{type(model).__name__} has no residual block with conv1, a BatchNorm and conv2, '
            "between which channels could be chosen. Take where='all'."
        )
    return groups


def _is_plain(module: Any) -> bool:
    return type(module) is nn.Conv2d and module.groups == 1


def norms_behind(model: nn.Module) -> dict[str, str]:
    """The BatchNorm with weights that reads what a convolution gives, by the convolution's name."""
    given: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, str] = {}

    def look(name: str, module: nn.Module, inputs: Any, out: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            given[id(out)] = name, out  # kept, so that no other tensor gets its identity
        elif id(inputs[0]) in given:
            found[given[id(inputs[0])][0]] = name

    hooks = [
        module.register_forward_hook(lambda m, x, out, name=name: look(name, m, x, out))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) or isinstance(module, _BatchNorm) and module.affine
    ]
    try:
        outputs(model)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def graph_groups(model: nn.Module, owner: str) -> list[Group]:
    """Groups of the layers in backbone, neck and dense heads, from torch-pruning's graph.

    Layers behind RoIs are not looked at, so what they read stays: the output of the neck. The same
    holds for whatever a head predicts.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: layers whose channels nobody can follow.
    """
    try:
        import torch_pruning
    except ImportError:
        raise ImportError(
            f"{owner}: where='all' follows channels with torch-pruning, which is not installed. "
            'Run: pip install "mmkd[prune]" (or pip install torch-pruning).'
        ) from None
    traced = revert_sync_batchnorm(copy.deepcopy(model)).eval().cpu()
    for parameter in traced.parameters():  # those without gradient vanish from the graph
        parameter.requires_grad_(True)
    _check_known(traced, owner)
    body = Traced(traced)
    image, shown = _image_and_shown(body)
    names = {id(module): name for name, module in traced.named_modules()}
    with warnings.catch_warnings():  # of scales, numbers that no channel has
        warnings.filterwarnings('ignore', 'Unwrapped parameters detected')
        graph = torch_pruning.DependencyGraph().build_dependency(body, example_inputs=image)
    groups = []
    for found in graph.get_all_groups():
        group = Group(0)
        for dependency, index in found:
            _add(group, graph, dependency, [*index], names)
        group.size = len(found[0].idxs)
        if not group.fixed and (end := next((x for x in group.givers() if x in shown), '')):
            group.fixed = f'{end} gives what is predicted, or what a head of RoIs reads'
        if any(len(one.index) % group.size for one in group.members):
            group.fixed = group.fixed or 'its channels are divided again'
        groups.append(group)
    return groups


class Traced(nn.Module):
    """A network without its preprocessing, its RoIs and its losses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Traced:
        """Nothing: a backbone freezes its stages here, and what is frozen is not in the graph."""
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Everything that backbone, neck and dense heads give."""
        model: Any = self.model
        if getattr(getattr(model, 'head', None), 'fc', None) is not None:
            return flatten(model(image, mode='tensor'))
        maps = model.extract_feat(image)
        found = []
        for name in ('rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head', 'mask_head'):
            head = getattr(model, name, None)
            for one in head if isinstance(head, nn.ModuleList) else [head]:
                found += flatten(one(maps)) if isinstance(one, nn.Module) else []
        return [*flatten(maps), *found] if hasattr(model, 'roi_head') or not found else found


def _image_and_shown(body: Traced) -> tuple[Tensor, set[str]]:
    """The image of the probe, and the layers whose channels come out."""

    def run(size: int) -> tuple[Tensor, set[int]]:
        image = picture(body.model, size)
        with torch.enable_grad():
            return image, producers(body(image))

    _, (image, shown) = first_that_runs(sizes_for([body.model]), run)
    layers = body.model.named_modules()
    return image, {name for name, one in layers if id(getattr(one, 'weight', None)) in shown}


def producers(tensors: Sequence[Tensor]) -> set[int]:
    """Identities of the weights that give the channels of some tensors, in autograd's graph."""
    stack = [x.grad_fn for x in tensors if x.grad_fn is not None]
    seen, found = set(stack), set()
    while stack:
        node = stack.pop()
        ends = node.name().startswith(_PRODUCTS)
        for other, _ in node.next_functions:
            if ends:
                while other is not None and other.name().startswith(('TBackward', 'Transpose')):
                    other = other.next_functions[0][0]
                if hasattr(other, 'variable'):
                    found.add(id(other.variable))
            elif other is not None and other not in seen:
                seen.add(other)
                stack.append(other)
    return found


def _check_known(model: nn.Module, owner: str) -> None:
    known = (nn.Conv2d, nn.Linear, _BatchNorm, nn.GroupNorm)
    odd = [
        f'{name or "the network"} ({type(module).__name__})'
        for name, module in model.named_modules()
        if not isinstance(module, known)
        and any(p.numel() > 1 for p in module._parameters.values() if p is not None)
        and not name.startswith('roi_head')
    ]
    if odd:
        raise ValueError(
            f'{owner}: channels of {", ".join(odd[:3])} cannot be followed. Prune the inside of '
            "residual blocks alone: where='inner'."
        )


def _add(group: Group, graph: Any, dependency: Any, index: list[int], names: dict) -> None:
    module = dependency.target.module
    name = names.get(id(module))
    if name is None:  # an operation
        return
    if isinstance(module, _BatchNorm):
        group.members.append(Member(name, NORM, index))
    elif isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        if not any(one.name == name for one in group.members):
            group.members.append(Member(name, NORM, index))
    elif isinstance(module, (nn.Conv2d, nn.Linear)) and getattr(module, 'groups', 1) == 1:
        out = graph.is_out_channel_pruning_fn(dependency.handler)
        group.members.append(Member(name, OUT if out else IN, index))
    elif any(True for _ in module.parameters()):
        group.fixed = f'{name} ({type(module).__name__}) divides them into groups of its own'
        group.members.append(Member(name, OUT, index))
