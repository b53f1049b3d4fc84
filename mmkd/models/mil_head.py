"""The RoI head of weakly supervised detection: WSDDN, refinement branches, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox2roi
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmkd.functional.mil import (
    Look,
    Targets,
    assign,
    box_loss,
    image_loss,
    proposal_scores,
    refinement_loss,
)
from mmkd.functional.mil_seeds import clustered_seeds, near_best_seeds, top_seeds
from mmkd.options import check_choice, check_number
from mmkd.registry import MODELS

SEEDS = dict(oicr=top_seeds, wsod2=near_best_seeds, casd=clustered_seeds)
#: least IoU with a seed, and IoU of the background
OVERLAPS = dict(oicr=(0.5, (0.0, 0.5)), wsod2=(0.5, (0.0, 0.5)), casd=(0.6, (0.1, 0.4)))
TEST = dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.3), max_per_img=100)
#: the public code takes 30 times the mean over four coordinates
BOX_FACTOR = 30 / 4


#: maps and proposals of each image, (R_i, 4)
View = tuple[Sequence[Tensor], list[Tensor]]


class MILHead(BaseModule):
    """Two linear layers, and what judges a proposal: classes, detection, refinements, box.

    ``forward`` takes features of RoIs, (R, C, P, P), and returns ``[classes (R, K), detection
    (R, K), refinement 1 (R, K + 1), …]``, background last, and with ``boxes`` the deltas (R, 4).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        width: int,
        dropout: float,
        refinements: int,
        boxes: bool,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        first, second = nn.Linear(in_channels, width), nn.Linear(width, width)
        layers = [first, nn.ReLU(), nn.Dropout(dropout), second, nn.ReLU(), nn.Dropout(dropout)]
        self.shared = nn.Sequential(*layers)
        self.fc_cls, self.fc_det = nn.Linear(width, num_classes), nn.Linear(width, num_classes)
        self.refine = nn.ModuleList(nn.Linear(width, num_classes + 1) for _ in range(refinements))
        self.fc_reg = nn.Linear(width, 4) if boxes else None

    def branches(self) -> list[nn.Module]:
        """The layers that judge a proposal, in the order of the outputs."""
        last = [] if self.fc_reg is None else [self.fc_reg]
        return [self.fc_cls, self.fc_det, *self.refine, *last]

    def init_weights(self) -> None:
        super().init_weights()
        for layer in self.branches():
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> list[Tensor]:
        shared = self.shared(features.flatten(1))
        return [branch(shared) for branch in self.branches()]


@MODELS.register_module()
class MILRoIHead(BaseModule):
    """Learns boxes from the classes of images: WSDDN, and refinement branches after OICR.

    WSDDN (Bilen and Vedaldi, CVPR 2016) scores proposals so that the scores of an image add up to
    its classes, :func:`~mmkd.functional.mil.proposal_scores`: ``loss_mil``. Each refinement (OICR:
    Tang et al., CVPR 2017) learns pseudo labels from the one before it, ``loss_refine1``, …; so
    does the box branch from the last, ``loss_box``. Detections are the mean of the refinements.
    Boxes of the ground truth are never read, only ``gt_instances.labels``.

    Args:
        num_classes (int): K, at least 2.
        in_channels (int): of the map.
        stride (int): of the map; the first map that the detector gives is read.
        width (int): of the two linear layers.
        roi_size (int): cells of a RoI on each side.
        dropout (float): behind either linear layer.
        refinements (int): branches, 0 for WSDDN alone.
        boxes (bool): a class-agnostic box branch.
        seeds (str): who is taken for an object: ``'oicr'``, the best proposal of each class;
            ``'wsod2'``, all within 0.9 of it, after an NMS of 0.5 over all classes; ``'casd'``, the
            centres of :func:`~mmkd.functional.mil_seeds.clustered_seeds`. The last also leaves out
            proposals whose IoU with a seed is below 0.1 or from 0.4 to 0.6.
        nms (str): of ``'wsod2'``, over ``'all'`` classes as in the public code, which drops a seed
            that overlaps one of another class, or ``'per_class'``.
        train_cfg, test_cfg (dict | None): from the detector; ``test_cfg`` is that of mmdet's heads.

    Raises:
        ValueError: numbers out of range; one class; a box branch without refinements.
    """

    with_bbox, with_mask, with_shared_head = True, False, False

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stride: int = 16,
        width: int = 4096,
        roi_size: int = 7,
        dropout: float = 0.5,
        refinements: int = 3,
        boxes: bool = False,
        seeds: str = 'oicr',
        nms: str = 'all',
        train_cfg: Any = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        owner = 'MILRoIHead'
        if check_number(owner, 'num_classes', num_classes, 1, whole=True) < 2:
            raise ValueError(
                'MILRoIHead: with num_classes=1 the scores of an image add up to 1 whatever it '
                'shows, so nothing is learned. Give images without the class a class of their own.'
            )
        for name, value in dict(
            in_channels=in_channels, stride=stride, width=width, roi_size=roi_size
        ).items():
            check_number(owner, name, value, 1, whole=True)
        self.num_classes = num_classes
        self.refinements = check_number(owner, 'refinements', refinements, 0, whole=True)
        if boxes and not self.refinements:
            raise ValueError(
                'MILRoIHead: the box branch learns from the last refinement, but refinements=0. '
                'Set boxes=False or refinements=3.'
            )
        self.seeds = check_choice(owner, 'seeds', seeds, SEEDS)
        self.per_class = check_choice(owner, 'nms', nms, ('all', 'per_class')) == 'per_class'
        self.test_cfg = test_cfg or TEST
        self.bbox_roi_extractor = MODELS.build(
            dict(
                type='mmdet.SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=roi_size, sampling_ratio=2),
                out_channels=in_channels,
                featmap_strides=[stride],
            )
        )
        self.bbox_head = MILHead(
            num_classes,
            in_channels * roi_size**2,
            width,
            check_number(owner, 'dropout', dropout, 0, below=1),
            self.refinements,
            boxes,
        )
        coder = dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2))
        self.bbox_coder = TASK_UTILS.build(coder) if boxes else None

    def forward(self, x: Sequence[Tensor], rpn_results_list: list, samples: Any = None) -> tuple:
        """What :class:`MILHead` says of the proposals."""
        boxes = [proposals.bboxes for proposals in rpn_results_list]
        return tuple(self.judge(x, boxes).outputs)

    def judge(self, x: Sequence[Tensor], boxes: list[Tensor]) -> Look:
        """Look at the proposals (R_i, 4) of each image on maps (N, C, H, W), of which the first
        counts."""
        maps, rois = tuple(x[:1]), bbox2roi(boxes)
        features = self.bbox_roi_extractor(maps, rois)
        if not len(features):  # nothing to judge, but the way back to the map
            features = features + maps[0].sum() * 0.0
        return Look(rois, features, [output.float() for output in self.bbox_head(features)])

    def look(self, views: Sequence[View]) -> list[Look]:
        """Look at every view of the images; called once in a training step, so that methods can
        tap it."""
        return [self.judge(x, boxes) for x, boxes in views]

    # ------------------------------------------------------------------------------- training

    def loss(
        self, x: Sequence[Tensor], rpn_results_list: list, batch_data_samples: list
    ) -> dict[str, Tensor]:
        """Losses of one view of the images, see :meth:`loss_over`."""
        boxes = [proposals.bboxes for proposals in rpn_results_list]
        return self.loss_over([(x, boxes)], batch_data_samples)

    def loss_over(self, views: Sequence[View], samples: list) -> dict[str, Tensor]:
        """Losses, means over views, whose mean scores give the pseudo labels of all.

        Args:
            views (list): maps and proposals of the images of each view; proposals at one place in
                the list are the same.
            samples (list): of the N images; ``gt_instances.labels`` are read.

        Returns:
            dict: ``loss_mil``, ``loss_refine1``, …, ``loss_box``, and how many images have no
            proposals.
        """
        n, count, looks = len(samples), len(views), self.look(views)
        images, boxes = looks[0].rois[:, 0].long(), looks[0].rois[:, 1:]
        present = self.present(samples, boxes.device)
        scores = [proposal_scores(*look.outputs[:2], images, n) for look in looks]
        losses = {'loss_mil': sum(image_loss(s, images, present) for s in scores) / count}
        targets = None
        for k in range(self.refinements):
            mean = (sum(scores) / count).detach()
            targets = self.get_targets(mean, boxes, images, present)
            logits = [look.outputs[2 + k] for look in looks]
            losses[f'loss_refine{k + 1}'] = (
                sum(refinement_loss(z, targets.labels, targets.weights, images, n) for z in logits)
                / count
            )
            scores = [z.softmax(1)[:, :-1] for z in logits]
        if self.bbox_coder is not None and targets is not None:
            own = [self.box_loss(look, targets, targets.weights) for look in looks]
            losses['loss_box'] = BOX_FACTOR * sum(own) / count
        empty = sum(not len(own) for own in views[0][1])
        return losses | {'images_without_proposals': boxes.new_tensor(float(empty))}

    def present(self, samples: list, device: torch.device) -> Tensor:
        """Whether an image contains a class, (N, K) bool."""
        found = torch.zeros(len(samples), self.num_classes, dtype=torch.bool, device=device)
        for row, sample in zip(found, samples, strict=True):
            row[sample.gt_instances.labels.to(device)] = True
        return found

    def get_targets(
        self, scores: Tensor, boxes: Tensor, images: Tensor, present: Tensor
    ) -> Targets:
        """Pseudo labels that a refinement learns; called once for each.

        Args:
            scores (Tensor): of classes, by the branch before, (R, K).
            boxes (Tensor): proposals, (R, 4).
            images (Tensor): (R,) long.
            present (Tensor): (N, K) bool.
        """
        options = dict(per_class=self.per_class) if self.seeds == 'wsod2' else {}
        seeds = SEEDS[self.seeds](scores, boxes, images, present, **options)
        return assign(seeds, boxes, images, self.num_classes, *OVERLAPS[self.seeds])

    def positive(self, targets: Targets) -> Tensor:
        """Which proposals are taken for an object, (R,) bool."""
        return (targets.labels >= 0) & (targets.labels < self.num_classes)

    def box_loss(self, look: Look, targets: Targets, weights: Tensor) -> Tensor:
        """:func:`~mmkd.functional.mil.box_loss` of the box branch in one view: the deltas of a
        positive are to lead to its seed.

        Args:
            weights (Tensor): (R,).
        """
        boxes = look.rois[:, 1:]
        errors = look.outputs[-1] - self.bbox_coder.encode(boxes, boxes[targets.seeds])
        return box_loss(errors, weights, self.positive(targets))

    # ----------------------------------------------------------------------------- prediction

    def predict(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list,
        batch_data_samples: list,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Boxes, scores and labels of each image: mean of the refinements, then NMS."""
        boxes = [proposals.bboxes for proposals in rpn_results_list]
        look, sizes = self.judge(x, boxes), [len(b) for b in boxes]
        scores = self.scores(look, len(boxes)).split(sizes)
        deltas = look.outputs[-1].split(sizes)
        found = []
        for own, score, delta, sample in zip(
            boxes, scores, deltas, batch_data_samples, strict=True
        ):
            meta = sample.metainfo
            if self.bbox_coder is not None:
                own = self.bbox_coder.decode(own, delta, max_shape=meta['img_shape'])
            if rescale:
                own = own / own.new_tensor(meta['scale_factor']).repeat(2)
            config = self.test_cfg
            kept, labels = multiclass_nms(
                own, score, config['score_thr'], config['nms'], config['max_per_img']
            )
            found.append(InstanceData(bboxes=kept[:, :4], scores=kept[:, 4], labels=labels))
        return found

    def scores(self, look: Look, n: int) -> Tensor:
        """Scores of classes, and one column of background, (R, K + 1), in N images."""
        if self.refinements:
            branches = look.outputs[2 : 2 + self.refinements]
            return sum(z.softmax(1) for z in branches) / self.refinements
        phi = proposal_scores(*look.outputs[:2], look.rois[:, 0].long(), n)
        return torch.cat((phi, 1 - phi.sum(1, keepdim=True)), 1)
