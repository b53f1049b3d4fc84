"""Networks that are linear in the pixels, so that gradients in the pixels are known."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.schedule import Progress
from mmkd.tap import Side, Trace
from mmkd.testing import class_labels

LABELS = torch.tensor([2, 0])


class Linear(nn.Module):
    """Logits that are linear in the pixels, so that gradients are known."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Module()
        self.head.fc = nn.Linear(12, 3)

    def forward(self, inputs: Tensor, samples: list | None = None, mode: str = 'tensor') -> Tensor:
        return self.head.fc(inputs.flatten(1))


def linear_step() -> Trace:
    """One step of two linear networks on two images of 2 x 2 pixels."""
    student, teacher = Linear(0), Linear(1).requires_grad_(False)
    inputs = torch.randn(2, 3, 2, 2, requires_grad=True)
    sides = [
        Side(model, inputs.detach() if model is teacher else inputs, {'head.fc': [model(inputs)]})
        for model in (student, teacher)
    ]
    return Trace(inputs, class_labels(LABELS), *sides, Progress(0, 10))


def closed_form(model: Linear, inputs: Tensor) -> Tensor:
    """Gradient of the cross entropy in the pixels: ``W^T (p - onehot(y))``, (N, 12)."""
    p = model(inputs).softmax(1) - F.one_hot(LABELS, 3)
    return p @ model.head.fc.weight
