"""Image classifiers: where the logits are, and labels."""

from __future__ import annotations

import torch
from torch import Tensor

LOGITS = 'head.fc'


def labels(samples: list, device: torch.device | str = 'cpu') -> Tensor:
    """Class index of each image, (N,) long; of a mixture (mixup, CutMix) the heaviest class.

    Raises:
        ValueError: a sample without ``gt_label`` and ``gt_score``.
    """
    found = []
    for sample in samples:
        score, label = sample.get('gt_score', None), sample.get('gt_label', None)
        if score is None and label is None:
            raise ValueError(
                'This objective needs class labels, but the batch has samples without gt_label. '
                'Let the data pipeline pack it.'
            )
        label = label if score is None else score.argmax()
        found.append(torch.as_tensor(label, device=device).flatten()[:1])
    return torch.cat(found).long()
