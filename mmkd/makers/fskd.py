"""FSKD: a pruned network aligned with the whole one by 1x1 layers, on few images, no labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.chain import Maker, Product
from mmkd.edits import Widths
from mmkd.engine.console.screen import current_screen
from mmkd.makers.channel_groups import Group, inner_groups
from mmkd.makers.chosen_channels import chosen_state, strongest
from mmkd.makers.networks import load_for_reshaping, on_gpu
from mmkd.makers.pictures import training_batches
from mmkd.makers.reshaped import write_reshaped
from mmkd.options import check_number
from mmkd.plan.probe import run_to_taps
from mmkd.registry import MAKERS
from mmkd.tap import Recorder, Tap
from mmkd.untouched import at_rest

Batches = Sequence[tuple[Tensor, list]]


@MAKERS.register_module()
class FSKD(Maker):
    """Few sample knowledge distillation for efficient network compression.

    Li et al., CVPR 2020. The inside of residual blocks is pruned by the L1 norm of its weights: the
    first convolution of a basic block, the first two of a bottleneck. Then, layer by layer, a 1x1
    layer Q brings what the pruned network gives behind the BatchNorm to the kept channels of the
    whole one, by least squares over all positions of the images, and is merged into the convolution
    before it. Nothing is trained, no label is read, and no layer remains. ``aligned.py`` builds the
    network, ``aligned.pth`` has its weights.

    Args:
        ratio (float): share of the channels to drop, in [0, 1).
        images (int): of the training set, drawn evenly from all in their order.
        ridge (float): added to the diagonal of the normal equations, as a share of its mean; 0
            needs as many positions as channels.

    Raises:
        ValueError: options out of range; not one network; no residual blocks; too few images.
    """

    def __init__(self, ratio: float = 0.5, images: int = 200, ridge: float = 1e-2) -> None:
        self.ratio = check_number('FSKD', 'ratio', ratio, 0, below=1)
        self.images = check_number('FSKD', 'images', images, 1, whole=True)
        self.ridge = check_number('FSKD', 'ridge', ridge, 0)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config, model = load_for_reshaping('FSKD', given)
        model.eval()
        chosen = []
        for group in inner_groups(model):
            count = max(1, int(group.size * (1 - self.ratio) + 0.5))
            if count < group.size:
                chosen.append((group, strongest(group, model, count)))
        state, sizes = chosen_state(model, chosen)
        edits = [dict(type='mmkd.Widths', sizes=sizes)] if sizes else []
        if chosen:
            student = Widths(sizes)(copy.deepcopy(model))
            student.load_state_dict(state)
            for network in (model, student):
                on_gpu(network)
            batches = [*training_batches(config, model, self.images)]
            gaps = [self.align(model, student, *one, batches) for one in chosen]
            before, after = (sum(x) / len(gaps) for x in zip(*gaps, strict=True))
            current_screen().say(
                f'FSKD: {len(chosen)} layers aligned on {sum(len(x) for x, _ in batches)} images, '
                f'their mean squared difference is {after / before:.1%} of that before.'
            )
            state = student.cpu().state_dict()
        return write_reshaped(work_dir, 'aligned', config, edits, state)

    def align(
        self,
        teacher: nn.Module,
        student: nn.Module,
        group: Group,
        keep: Sequence[int],
        batches: Batches,
    ) -> tuple[float, float]:
        """Merge Q into one layer of the student.

        Returns:
            tuple: mean squared difference of student and teacher behind it, before and after.

        Raises:
            ValueError: fewer positions than channels, and no ridge.
        """
        conv, norm = (student.get_submodule(one.name) for one in group.members[:2])
        sums = moments(teacher, student, group.members[1].name, keep, batches)
        count, channels = sums['count'], len(keep)
        if count < channels:
            few = f'the images give {count} positions for the {channels} channels of {group.name}'
            if not self.ridge:
                raise ValueError(f'FSKD: {few}. Take more images, or a ridge.')
            text = (
                f'FSKD: {few}, so that the ridge decides much of its 1x1 layer. Take more images.'
            )
            print_log(text, 'current', WARNING)
        mixing = least_squares(sums['xx'], sums['xy'], self.ridge)
        merge(conv, norm, mixing, sums['x'] / count, sums['xx'] / count)
        unit = torch.eye(channels, dtype=mixing.dtype, device=mixing.device)
        return tuple(residual(sums, q) / (count * channels) for q in (unit, mixing))  # type: ignore[return-value]


def moments(
    teacher: nn.Module, student: nn.Module, norm: str, keep: Sequence[int], batches: Batches
) -> dict[str, Any]:
    """Sums over all positions of the images of what both networks give behind a BatchNorm.

    Returns:
        dict: ``count``, ``x`` (C,), ``xx`` and ``xy`` (C, C), ``yy``, in float64; x is the
        student's, y the kept channels of the teacher's.
    """
    tap = Tap.parse(norm)
    recorders = [Recorder(network, [tap]) for network in (student, teacher)]
    sums: dict[str, Any] = dict(count=0, x=0, xx=0, xy=0, yy=0)
    for inputs, samples in batches:
        seen = []
        for recorder in recorders:
            with at_rest(recorder.model), recorder.record(inputs) as side:
                run_to_taps(recorder.model, [tap], inputs, samples)
            seen.append(side.seen(tap)[-1].double().transpose(0, 1).flatten(1))
        x, y = seen[0], seen[1][list(keep)]
        sums['count'] += x.shape[1]
        for key, value in dict(x=x.sum(1), xx=x @ x.T, xy=x @ y.T, yy=y.square().sum()).items():
            sums[key] = sums[key] + value
    return sums


def least_squares(xx: Tensor, xy: Tensor, ridge: float = 0) -> Tensor:
    """Q that minimises ``|X Q - Y|^2 + ridge * mean(diag(X^T X)) |Q|^2``.

    Args:
        xx, xy (Tensor): X^T X and X^T Y, (C, C).
    """
    weight = ridge * xx.diagonal().mean()
    unit = torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
    system = (xx + weight * unit).cpu()  # where lstsq takes rows that depend on each other
    return torch.linalg.lstsq(system, xy.cpu(), driver='gelsd').solution.to(xx)


def residual(sums: Mapping[str, Any], mixing: Tensor) -> float:
    """``|X Q - Y|^2`` from the moments of X and Y."""
    crossed = (mixing * sums['xy']).sum()
    own = (mixing * (sums['xx'] @ mixing)).sum()
    return max(float(own - 2 * crossed + sums['yy']), 0.0)


@torch.no_grad()
def merge(conv: Any, norm: Any, mixing: Tensor, mean: Tensor, square: Tensor) -> None:
    """Let a convolution and its BatchNorm give Q^T of what they give, in both modes.

    The BatchNorm is folded into the convolution, Q is merged, and both are divided again: the
    statistics are those of the new convolution on the images, and weight and bias take them back.
    In training on these images it gives the same.

    Args:
        mixing (Tensor): Q (C, C).
        mean, square (Tensor): of what they give now, (C,), and the mean of its products (C, C).
    """
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
        conv.bias.zero_()
    folded = conv.weight.double() * scale.view(-1, 1, 1, 1)
    conv.weight.copy_(torch.einsum('cj,cikl->jikl', mixing, folded))
    centred = square - torch.outer(mean, mean)
    variance = torch.einsum('cj,cd,dj->j', mixing, centred, mixing).clamp_min(0)
    middle = mixing.T @ (mean - shift)
    norm.running_mean.copy_(middle)
    norm.running_var.copy_(variance)
    norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
    norm.bias.copy_(middle + mixing.T @ shift)
