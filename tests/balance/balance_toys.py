"""Terms on one tensor of a student, with gradients of known length and direction."""

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from mmkd.objective import Objective
from mmkd.schedule import Progress
from mmkd.tap import Side, Trace

TAP = 'neck'


class Named(Objective):
    taps = TAP


def objectives(*names, **options):
    """By name, objectives that tap the neck."""
    return {name: Named(**options) for name in names}


def step(vectors, task=None, weights=None, iteration=0, total=1000, shape=None):
    """Arguments of a balance: the gradient of each term at the neck is weight times its vector.

    Args:
        vectors (dict): by objective, the gradient at a tensor of ``shape``, by default one image.
    """
    first = next(iter(vectors.values()))
    leaf = torch.zeros(shape or (1, len(first)), requires_grad=True)
    x = leaf * 1
    weights = weights or {}

    def loss(vector):
        return (x * torch.tensor(vector).reshape(x.shape)).sum()

    terms = {
        name: {f'kd.{name}.loss': loss(vector) * weights.get(name, 1.0)}
        for name, vector in vectors.items()
    }
    own = {} if task is None else {'loss_cls': loss(task), 'accuracy': torch.ones(())}
    side = Side(nn.Module(), leaf, {TAP: [x]}, {TAP: [get_gradient_edge(x)]})
    progress = Progress(iteration, total)
    return terms, own, Trace(leaf, [], side, None, progress), progress
