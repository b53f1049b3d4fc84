"""A module that stands where a network would, for answers that come from elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families import classifier, family_of, segmentor
from mmkd.families.comparable import named
from mmkd.families.mask_classes import words_left_out
from mmkd.route import run_route, shortest_route
from mmkd.tap import Recorder, Tap
from mmkd.untouched import evaluation


class Answers(nn.Identity):
    """The place of class scores, with the attributes that a linear layer or convolution has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.out_features = self.out_channels = classes


class StandIn(nn.Module):
    """Class scores of a family's own place, and nothing else.

    Its taps are ``head.fc`` of a classifier and ``decode_head.conv_seg`` of a segmentor. It has no
    weights and computes nothing: a probe sees zeros (N, K) or (N, K, H / stride, W / stride).

    Args:
        family (str): ``'classifier'`` or ``'segmentor'``.
        classes (int): K.
        stride (int): of the scores of a segmentor.
        names (tuple[str, ...] | None): of the classes, where they are known.
        like (nn.Module | None): a segmentor whose scores are as large, in place of ``stride``.
    """

    def __init__(
        self,
        family: str,
        classes: int,
        stride: int = 1,
        names: tuple[str, ...] | None = None,
        like: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.__dict__['like'] = like  # no part of this module
        # What asks for the device of a network asks a parameter.
        self.nothing = nn.Parameter(torch.zeros(()), requires_grad=False)
        part = nn.Module()
        part.num_classes = part.out_channels = classes
        if family == 'classifier':
            part.fc = Answers(classes)
            self.head, self.tap = part, classifier.LOGITS
        else:
            part.conv_seg, part.align_corners = Answers(classes), False
            self.decode_head, self.tap = part, 'decode_head.conv_seg'
        self.classes, self.dataset_meta = classes, {} if names is None else dict(classes=names)

    @classmethod
    def of(cls, owner: str, model: nn.Module, **changes: Any) -> StandIn:
        """With the place and the classes of a network.

        Raises:
            ValueError: it is neither a classifier nor a segmentor.
        """
        classes = count_classes(owner, model)
        options = dict(family=family_of(model), classes=classes, names=classifier.classes(model))
        return cls(**{**options, **changes})

    def forward(self, inputs: Tensor, samples: Any = None, mode: str = 'tensor') -> Tensor:
        shape = [len(inputs), self.classes]
        if self.tap != classifier.LOGITS:
            shape += self._size(inputs, samples)
        return self.get_submodule(self.tap)(inputs.new_zeros(shape))

    @torch.no_grad()
    def _size(self, inputs: Tensor, samples: Any) -> list[int]:
        """Height and width of the scores."""
        like = self.__dict__['like']
        if like is None:
            return [-(-side // self.stride) for side in inputs.shape[2:]]
        tap, seen = Tap.parse(scores_tap(like)), inputs.to(next(like.parameters()).dtype)
        with evaluation(like), words_left_out(like), Recorder(like, [tap]).record(seen) as side:
            run_route(like, shortest_route(like, [tap]), seen, samples)
        return list(side.maps(tap)[0].shape[2:])


def count_classes(owner: str, model: nn.Module) -> int:
    """Columns of the class scores of a classifier or segmentor.

    Raises:
        ValueError: another network.
    """
    family = family_of(model)
    if family == 'classifier':
        return int(model.head.fc.out_features)
    if family == 'segmentor' and segmentor.classifies_pixels(model):
        return segmentor.classes(model)
    raise ValueError(
        f'{owner} works with class scores of whole images (classifiers) or pixels (segmentors), '
        f'but the network is {named(model)}.'
    )


def scores_tap(model: nn.Module) -> str:
    """Address of the class scores of a classifier or segmentor."""
    if isinstance(model, StandIn):
        return model.tap
    return classifier.LOGITS if family_of(model) == 'classifier' else segmentor.logits_tap(model)
