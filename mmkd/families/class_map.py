"""Which classes of a student its teacher knows, where the student has learnt more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.families.comparable import Misfit
from mmkd.options import check_list, check_number


class ClassMap(nn.Module):
    """The student's scores of the classes that the teacher knows, in the teacher's order.

    Args:
        owner (str): objective, for messages.
        places (Sequence[int]): for each class of the teacher its label in the student.

    Raises:
        ValueError: no label, one that is listed twice, or none of a class.
    """

    places: Tensor

    def __init__(self, owner: str, places: Sequence[int]) -> None:
        super().__init__()
        listed = check_list(owner, 'class_map', places)
        self.owner = owner
        self.listed = [check_number(owner, 'class_map', p, 0, whole=True) for p in listed]
        if not listed or len(set(self.listed)) < len(self.listed):
            raise ValueError(
                f'{owner}: class_map has for each class of the teacher its label in the student, '
                f'each once, found {listed}.'
            )
        self.register_buffer('places', torch.tensor(self.listed), persistent=False)

    def check(self, student: int, teacher: int, least: int = 1) -> None:
        """Whether it fits the numbers of classes, else Misfit.

        Args:
            least (int): classes that a teacher must know; of a softmax without background 2.
        """
        if len(self.listed) != teacher or max(self.listed) >= student or teacher < least:
            raise Misfit(
                f'{self.owner}: class_map={self.listed} must have one label below {student}, the '
                f"student's number of classes, for each of the teacher's {teacher} classes"
                + f', of which there must be {least}' * (teacher < least)
                + '.'
            )

    def forward(self, logits: Tensor, dim: int = -1) -> Tensor:
        """Logits of the teacher's classes, those of the student being along ``dim``."""
        return logits.index_select(dim, self.places)

    def with_background(self, logits: Tensor, tau: float = 1.0) -> Tensor:
        """Logits (R, C + 1), background last, as (R, K + 1) of the teacher's K classes.

        What the teacher does not know is background to it, so the probability of its background
        is compared with the sum of those of the background and of all other classes at ``tau``
        (Cermelli et al., CVPR 2020, unbiased distillation).
        """
        rest = logits.new_ones(logits.shape[-1], dtype=torch.bool).index_fill(0, self.places, False)
        background = (logits / tau).masked_fill(~rest, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat((self(logits), tau * background), -1)


def class_map_of(owner: str, places: Sequence[int] | None) -> ClassMap | None:
    """The option ``class_map`` of an objective; None: both have the same classes."""
    return None if places is None else ClassMap(owner, places)
