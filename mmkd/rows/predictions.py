"""Decoded predictions of dense heads (RPN, RetinaNet, FCOS, RTMDet, YOLOX …), one row per prior."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmkd.families.comparable import CODES, definer, kind_of, shared_levels
from mmkd.families.dense import assigned, dense_head, level_priors, outputs_tap, targets_tap
from mmkd.families.dense import targets as step_targets
from mmkd.families.two_stage import features_tap
from mmkd.functional.boxes import select_boxes
from mmkd.functional.cells import rows
from mmkd.functional.device import upload
from mmkd.functional.padding import crop_padding
from mmkd.functional.sigmoid_distances import joint_logit
from mmkd.scales import full_size
from mmkd.tap import Tap, Trace, parse_taps

#: (H, W) of levels, by their number
Sizes = dict[int, tuple[int, int]]

#: YOLOX's logarithms of sides, in strides, beyond which a box is larger than any picture
_MOST_LOG_SIDE = 10.0


@torch.no_grad()
def head_outputs(model: nn.Module, feats: list[Tensor]) -> list[Tensor]:
    """Outputs of a frozen model's dense head: class maps of all levels, box maps, and so on."""
    head = dense_head(model)
    dtype = next(head.parameters()).dtype
    return [m.float() for part in head(tuple(f.to(dtype) for f in feats)) for m in part]


def split(
    model: nn.Module, outputs: list[Tensor], chosen: Iterable[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Class logits (N, P, K) and box codes (N, P, D) of all levels.

    Logits of YOLOX are those of class and object together, of TOOD those of its probabilities.

    Args:
        chosen (Iterable[int] | None): only these levels.
    """
    among = list(range(dense_head(model).prior_generator.num_levels) if chosen is None else chosen)
    maps = class_maps(model, outputs, among)
    logits = rows([m.flatten(1, 2) for m in maps], maps[0].shape[2])
    return logits, box_codes(model, outputs, among)


def class_maps(model: nn.Module, outputs: list[Tensor], levels: list[int]) -> list[Tensor]:
    """Class logits of these levels as :func:`split` gives them, but as maps (N, A, K, H, W)."""
    head, kind = dense_head(model), kind_of(model)
    count, priors_a_cell = head.prior_generator.num_levels, head.prior_generator.num_base_priors
    found = [outputs[i].unflatten(1, (priors_a_cell[i], -1)) for i in levels]
    if kind == 'yolox':
        objects = [outputs[2 * count + i].unflatten(1, (priors_a_cell[i], 1)) for i in levels]
        return [joint_logit(*pair) for pair in zip(found, objects, strict=True)]
    return [torch.logit(x, 1e-6) for x in found] if kind == 'decoded' else found


def box_codes(model: nn.Module, outputs: list[Tensor], levels: list[int]) -> Tensor:
    """(N, P, D) of these levels.

    Codes in pixels are divided by the stride, which FCOS's own are in training only, if at all.
    """
    head, kind = dense_head(model), kind_of(model)
    count, strides = head.prior_generator.num_levels, head.prior_generator.strides
    # In training VFNet gives its first boxes, too.
    found = outputs[-count:] if definer(head, 'forward') == 'VFNetHead' else outputs[count:]
    boxes = [found[i] for i in levels]
    in_pixels = kind == 'distance' and not (head.norm_on_bbox and head.training)
    if in_pixels or kind == 'pixels':
        boxes = [m / strides[i][0] for m, i in zip(boxes, levels, strict=True)]
    width = 4 * (head.reg_max + 1) if kind == 'distribution' else 4
    return rows(boxes, width)


def priors(model: nn.Module, sizes: Sizes, device: torch.device) -> Tensor:
    """Anchors (P, 4) or points (P, 2) of these levels, as mmdet makes them."""
    generator = dense_head(model).prior_generator
    return torch.cat([level_priors(generator, s, i, device) for i, s in sizes.items()])


def decode(model: nn.Module, codes: Tensor, sizes: Sizes, samples: list | None) -> Tensor:
    """Boxes (N, P, 4) as xyxy, clipped to each image.

    Args:
        codes (Tensor): (N, P, D) from :func:`split`.
        sizes (dict[int, tuple[int, int]]): (H, W) of each level.
        samples (list | None): for the images' sizes without padding; without them nothing is
            clipped, which losses want.
    """
    head, kind = dense_head(model), kind_of(model)
    grid = priors(model, sizes, codes.device)
    if kind == 'delta':
        flat = grid.repeat(len(codes), 1)
        boxes = head.bbox_coder.decode(flat, codes.reshape(-1, 4)).view(len(codes), -1, 4)
    elif kind == 'decoded':
        boxes = codes * _strides(head, sizes, codes)
    else:
        stride = _strides(head, sizes, codes)
        center = grid if grid.shape[-1] == 2 else (grid[:, :2] + grid[:, 2:]) / 2
        if kind == 'yolox':
            center = center + codes[..., :2] * stride
            low = high = codes[..., 2:].clamp(max=_MOST_LOG_SIDE).exp() * stride / 2
        else:
            low, high = (expected(model, codes) * stride).split(2, -1)
        boxes = torch.cat((center - low, center + high), -1)
    if samples is None:
        return boxes
    limits = [sample.metainfo['img_shape'][:2] for sample in samples]
    limit = upload([[w, h, w, h] for h, w in limits], boxes)[:, None]
    return torch.minimum(boxes.clamp(min=0), limit)


def _strides(head: nn.Module, sizes: Sizes, like: Tensor) -> Tensor:
    """Stride of each prior, (P, 1)."""
    strides, counts = head.prior_generator.strides, prior_counts(head, sizes)
    return torch.cat([like.new_full((n, 1), strides[i][0]) for i, n in counts.items()])


def prior_counts(head: nn.Module, sizes: Sizes) -> dict[int, int]:
    """Priors of each level, by its number."""
    a_cell = head.prior_generator.num_base_priors
    return {i: h * w * a_cell[i] for i, (h, w) in sizes.items()}


def level_sizes(model: nn.Module, outputs: list[Tensor]) -> Sizes:
    """(H, W) of each level, by its number."""
    levels = dense_head(model).prior_generator.num_levels
    return {i: tuple(m.shape[2:]) for i, m in enumerate(outputs[:levels])}


def expected(model: nn.Module, codes: Tensor) -> Tensor:
    """Box codes as four numbers (N, P, 4): of distributions over bins the mean."""
    if kind_of(model) != 'distribution':
        return codes
    bins = codes.unflatten(-1, (4, -1)).softmax(-1)
    return bins @ torch.arange(bins.shape[-1], device=codes.device, dtype=codes.dtype)


@torch.no_grad()
def positives(model: nn.Module, sizes: Sizes, rois: Tensor, each: list[int]) -> Tensor:
    """Priors (N, P) bool that the head's assigner would make positive for these boxes.

    Points, which FCOS has in place of anchors, are so inside a box.

    Args:
        sizes (dict[int, tuple[int, int]]): (H, W) of each level.
        rois (Tensor): (Q, 5), image index and xyxy.
        each (list[int]): how many of them each image has.
    """
    grid, images = priors(model, sizes, rois.device), rois[:, 0].long()
    n = len(each)
    if kind_of(model) == 'distance':
        low, high = (x[:, None] for x in (rois[:, 1:3], rois[:, 3:]))
        inside = ((grid > low) & (grid < high)).all(-1).int()
        return inside.new_zeros(n, len(grid)).index_add_(0, images, inside) > 0
    counts = list(prior_counts(dense_head(model), sizes).values())
    found = torch.zeros(n, len(grid), dtype=torch.bool, device=rois.device)
    boxes = rois[images.argsort(stable=True), 1:].split(each)
    for image, own in enumerate(boxes):  # assigners see one image at a time
        if len(own):
            found[image] = assigned(model, grid, counts, own) > 0
    return found


def ranking(model: nn.Module, outputs: list[Tensor], logits: Tensor) -> Tensor:
    """Score by which NMS orders the boxes of all levels, (N, P), as in the head's own inference.

    It is the probability of the best class, times that of centerness (FCOS, ATSS) or of IoU (PAA)
    where the head gives such a third map.

    Args:
        logits (Tensor): of classes, (N, P, K), from :func:`split`.
    """
    best, count = logits.amax(-1).sigmoid(), dense_head(model).prior_generator.num_levels
    if kind_of(model) not in CODES or len(outputs) != 3 * count:
        return best
    return best * rows(outputs[2 * count :], 1)[..., 0].sigmoid()


@torch.no_grad()
def proposals(model: nn.Module, outputs: list[Tensor], samples: list, count: int) -> Tensor:
    """The best boxes of each image after NMS (IoU 0.7, class-agnostic), (R, 5)."""
    logits, codes = split(model, outputs)
    boxes = decode(model, codes, level_sizes(model, outputs), samples)
    return select_boxes(ranking(model, outputs, logits), boxes, 0.7, count)[0]


def answer_taps(student: nn.Module, teacher: nn.Module) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """Taps on student and teacher that :func:`answers` and :func:`targets` need."""
    return parse_taps([outputs_tap(student), targets_tap(student)]), parse_taps(
        features_tap(teacher)
    )


def shared(trace: Trace) -> list[tuple[int, int]]:
    """Levels of student and teacher whose priors are the same boxes; all, unless over scales."""
    heads = [dense_head(side.model) for side in (trace.student, trace.teacher)]
    return shared_levels(*heads, trace.scale)


def both_outputs(trace: Trace) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of both dense heads; the teacher's without padding of its own."""
    model = trace.teacher.model
    wanted = head_outputs(model, trace.teacher[features_tap(model)])
    wanted = [crop_padding(t, trace.teacher.inputs, full_size(trace)) for t in wanted]
    return trace.student[outputs_tap(trace.student.model)], wanted


def answers(trace: Trace) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Class logits (N, P, K) and box codes (N, P, D) of both dense heads, on shared levels."""
    own, wanted = both_outputs(trace)
    first, second = zip(*shared(trace), strict=True)
    return split(trace.student.model, own, first), split(trace.teacher.model, wanted, second)


def sizes_of(trace: Trace) -> Sizes:
    """(H, W) of each shared level of the student's dense head."""
    model = trace.student.model
    sizes = level_sizes(model, trace.student[outputs_tap(model)])
    return {i: sizes[i] for i, _ in shared(trace)}


def targets(trace: Trace, count: int) -> list[Tensor]:
    """The first ``count`` of the dense head's targets in this step, (N, P, …) each, on shared
    levels."""
    found, levels = step_targets(trace)[:count], [i for i, _ in shared(trace)]
    return [torch.cat([x[i] for i in levels], 1) for x in found]
