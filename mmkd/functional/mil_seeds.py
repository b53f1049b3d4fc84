"""Which proposals are taken for objects, from scores and image labels alone: OICR, WSOD2, PCL."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.functional.boxes import iou_matrix
from mmkd.functional.mil import Seeds, in_image

#: of :func:`clustered_seeds`, as in the public code of CASD
CLUSTERS, GRAPH_IOU, CENTRES, ROUNDS = 3, 0.4, 5, 20


def top_seeds(scores: Tensor, boxes: Tensor, images: Tensor, present: Tensor) -> Seeds:
    """OICR (Tang et al., CVPR 2017): the proposal of highest score of each present class.

    Of equal ones it is the first.

    Args:
        scores (Tensor): of classes, (R, K).
        boxes (Tensor): (R, 4).
        images (Tensor): (R,) long.
        present (Tensor): (N, K) bool.
    """
    n, r = len(present), len(scores)
    best = in_image(scores, images, n, 'amax', -torch.inf)
    rows = torch.arange(r, device=scores.device)[:, None].expand_as(scores)
    first = in_image(rows.masked_fill(scores < best[images], r), images, n, 'amin', r)
    image, label = (present & (first < r)).nonzero(as_tuple=True)
    row = first[image, label]
    return Seeds(row, label, scores[row, label])


def near_best_seeds(
    scores: Tensor,
    boxes: Tensor,
    images: Tensor,
    present: Tensor,
    share: float = 0.9,
    iou: float = 0.5,
    per_class: bool = False,
) -> Seeds:
    """WSOD2 (Zeng et al., ICCV 2019): all scores near the best of their class, then NMS.

    Args:
        scores, boxes, images, present: as in :func:`top_seeds`.
        share (float): of the class's best score.
        iou (float): of the NMS, which runs over the seeds of all classes together, as in the public
            code, or for each class with ``per_class``.
    """
    from mmcv.ops import batched_nms

    best = in_image(scores, images, len(present), 'amax', -torch.inf)
    row, label = (present[images] & (scores >= share * best[images])).nonzero(as_tuple=True)
    score = scores[row, label]
    if len(row):
        group = images[row] * scores.shape[1] + label * per_class
        config = dict(type='nms', iou_threshold=iou)
        keep = batched_nms(boxes[row], score, group, config)[1]
        row, label, score = row[keep], label[keep], score[keep]
    return Seeds(row, label, score)


def clustered_seeds(scores: Tensor, boxes: Tensor, images: Tensor, present: Tensor) -> Seeds:
    """The seeds of PCL (Tang et al., TPAMI 2018), which CASD uses.

    For each present class: the scores are divided into three clusters; proposals of the highest one
    whose IoU is above 0.4 are neighbours; the proposal with most neighbours is a seed with the best
    score among them, they are taken away, and so on, up to five times. Seeds are left out for later
    classes. All images at once. The clusters start at the lowest score, the middle and the highest,
    where the public code draws them.

    Args:
        scores, boxes, images, present: as in :func:`top_seeds`.
    """
    n, r = len(present), len(scores)
    none = images.new_zeros(0)
    found = [Seeds(none, none, scores.new_zeros(0))]
    if not r:
        return found[0]
    near = (iou_matrix(boxes, boxes) > GRAPH_IOU) & (images[:, None] == images[None])
    near |= torch.eye(r, dtype=torch.bool, device=near.device)
    own = images[None] == torch.arange(n, device=images.device)[:, None]  # (N, R)
    pool = torch.ones(r, dtype=torch.bool, device=scores.device)
    for label in present.any(0).nonzero()[:, 0].tolist():
        score = scores[:, label]
        left = highest_cluster(score, images, pool, n) & present[images, label]
        taken = torch.zeros_like(pool)
        for _ in range(CENTRES):
            degree = (near & left).sum(1).masked_fill(~left, 0)
            most, row = degree.expand(n, r).masked_fill(~own, -1).max(1)
            row = row[most > 0]
            if not len(row):
                break
            around = near[row] & left  # (S, R)
            best = score.expand(len(row), r).masked_fill(~around, -torch.inf).amax(1)
            found.append(Seeds(row, torch.full_like(row, label), best))
            taken[row] = True
            left = left & ~around.any(0)
        pool = pool & ~taken
    return Seeds(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def highest_cluster(score: Tensor, images: Tensor, pool: Tensor, n: int) -> Tensor:
    """Members of the highest of three clusters of an image's scores (Lloyd's algorithm), (R,) bool.

    Args:
        score (Tensor): (R,).
        pool (Tensor): who takes part, (R,) bool.
    """
    who, own = images[pool], score[pool][:, None]
    low, high = in_image(own, who, n, 'amin', 2.0), in_image(own, who, n, 'amax', -1.0)
    centres = torch.cat((low, (low + high) / 2, high), 1)  # (N, 3)
    for _ in range(ROUNDS):
        apart = (score[:, None] - centres[images]).abs()
        # Of equal distances the higher centre, so that equal scores are all in the highest cluster.
        cluster = CLUSTERS - 1 - apart.flip(1).argmin(1)
        slot = (images * CLUSTERS + cluster)[pool]
        sums = score.new_zeros(n * CLUSTERS).index_add(0, slot, own[:, 0])
        size = score.new_zeros(n * CLUSTERS).index_add(0, slot, torch.ones_like(own[:, 0]))
        mean = (sums / size.clamp(min=1)).view(n, CLUSTERS)
        centres = torch.where(size.view(n, CLUSTERS) > 0, mean, centres)
    return pool & (cluster == CLUSTERS - 1)
