"""A detector on given proposals that can look at several views of each image in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import FastRCNN
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmkd.models.mil_head import TEST
from mmkd.options import check_choice, check_list, check_number
from mmkd.registry import MODELS

VIEWS = ('flip', 'scale', 'both')


@MODELS.register_module()
class WeakDetector(FastRCNN):
    """mmdet's FastRCNN with :class:`~mmkd.models.mil_head.MILRoIHead`, on proposals of the data.

    Args:
        backbone (dict): whose first map, or the neck's, is read.
        roi_head (dict): ``dict(type='mmkd.MILRoIHead', …)``.
        neck (dict | None): of mmdet.
        views (Sequence[str]): beside the image itself, in training: ``'flip'``, ``'scale'``,
            ``'both'``; each costs a pass through the whole network. CASD compares them.
        scales (Sequence[float]): sizes of ``'scale'`` and ``'both'`` in shares of the image's, of
            which each step draws one.
        train_cfg, test_cfg (dict | None): of mmdet; without ``test_cfg`` an NMS of 0.3, no
            threshold and 100 boxes of each image.
        data_preprocessor, init_cfg: of mmdet.

    Raises:
        ValueError: an unknown view; no scale, or one not above 0; in a step, samples without
            proposals or without image labels.
    """

    def __init__(
        self,
        backbone: dict,
        roi_head: dict,
        neck: dict | None = None,
        views: Sequence[str] = (),
        scales: Sequence[float] = (0.75, 1.25),
        train_cfg: Any = None,
        test_cfg: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        owner = 'WeakDetector'
        views = [check_choice(owner, 'views', v, VIEWS) for v in check_list(owner, 'views', views)]
        scales = check_list(owner, 'scales', scales)
        if not scales:
            raise ValueError('WeakDetector: scales must have a number such as 0.75, found none.')
        super().__init__(
            backbone=backbone,
            neck=neck,
            roi_head=roi_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg or ConfigDict(rcnn=TEST),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not hasattr(self.roi_head, 'loss_over'):
            raise ValueError(
                f'WeakDetector needs the RoI head mmkd.MILRoIHead, found '
                f'{type(self.roi_head).__name__}. mmdet.FastRCNN takes others.'
            )
        self.views = tuple(dict.fromkeys(views))
        self.scales = tuple(check_number(owner, 'scales', s, above=0) for s in scales)

    @property
    def flipped(self) -> tuple[bool, ...]:
        """Which views are mirrored, the image itself first."""
        return (False, *(view in ('flip', 'both') for view in self.views))

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        boxes = proposals_of(batch_data_samples)
        seen = [(batch_inputs, boxes)]
        size = self._size(batch_inputs.shape[2:]) if {'scale', 'both'} & {*self.views} else None
        for view in self.views:
            flip, scale = view in ('flip', 'both'), size if view in ('scale', 'both') else None
            seen.append(look(batch_inputs, boxes, flip, scale))
        views = [(self.extract_feat(inputs), own) for inputs, own in seen]
        return self.roi_head.loss_over(views, batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        proposals_of(batch_data_samples)
        return super().predict(batch_inputs, batch_data_samples, rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list | None = None) -> tuple:
        """Outputs of the head; where samples have no proposals it judges the whole images."""
        samples = batch_data_samples or []
        given = [sample.get('proposals') for sample in samples]
        if not samples or any(one is None for one in given):
            height, width = batch_inputs.shape[2:]
            whole = batch_inputs.new_tensor([[0.0, 0.0, width, height]])
            given = [InstanceData(bboxes=whole) for _ in batch_inputs]
        return self.roi_head.forward(self.extract_feat(batch_inputs), given, samples)

    def _size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the scaled view of this step."""
        drawn = int(torch.randint(len(self.scales), ())) if len(self.scales) > 1 else 0
        height, width = (max(1, round(side * self.scales[drawn])) for side in size)
        return height, width


def proposals_of(samples: list) -> list[Tensor]:
    """Proposals of each image, (R_i, 4).

    Raises:
        ValueError: an image has none, not even an empty list.
    """
    for sample in samples:
        if sample.get('proposals') is None:
            raise ValueError(
                f'WeakDetector: {sample.get("img_path", "an image")} came without proposals. Let '
                'the pipeline have mmkd.LoadProposals or mmkd.GridProposals behind the image, and '
                'mmkd.ProposalsToImage in front of PackDetInputs.'
            )
    return [sample.proposals.bboxes for sample in samples]


def look(
    inputs: Tensor, boxes: list[Tensor], flip: bool, size: tuple[int, int] | None
) -> tuple[Tensor, list[Tensor]]:
    """Images (N, 3, H, W), mirrored and resized, and the boxes on them."""
    height, width = inputs.shape[2:]
    if flip:
        inputs = inputs.flip(3)
        turn = inputs.new_tensor([-1.0, 1.0, -1.0, 1.0])
        move = inputs.new_tensor([width, 0.0, width, 0.0])
        boxes = [(b * turn + move)[:, [2, 1, 0, 3]] for b in boxes]
    if size is not None:
        inputs = F.interpolate(inputs, size, mode='bilinear', align_corners=False)
        ratio = inputs.new_tensor([size[1] / width, size[0] / height] * 2)
        boxes = [b * ratio for b in boxes]
    return inputs, boxes
