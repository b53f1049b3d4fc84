"""A file in the place of a student's layers, so that its predictions are scored as its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.borrowed import replaced
from mmkd.deployment.networks import Anchors, Body, Classes, Deployed, Pixels

#: a file: pixels (1, C, H, W) to the tensors that it gives
Run = Callable[[Tensor], list[Tensor]]


@contextlib.contextmanager
def standing_in(model: Any, network: Deployed, run: Run, size: tuple[int, int]) -> Iterator[None]:
    """While it lasts, a student predicts with what a file gives.

    Detectors with anchors do with its boxes and scores what ``model.test_cfg`` says. What is not in
    the file, such as the heads behind a body, remains the student's.

    Args:
        model (nn.Module): the student, of the kind of ``network.model``.
        network (Deployed): what was exported.
        run (Callable): the file.
        size (tuple[int, int]): height and width that it takes.

    Raises:
        ValueError: in predictions, an image of another size.
    """
    with contextlib.ExitStack() as places:
        for owner, name, other in _instead(model, network, _of_batches(network, run, size)):
            places.enter_context(replaced(owner, {name: other}))
        yield


def _of_batches(network: Deployed, run: Run, size: tuple[int, int]) -> Run:
    """The file for batches of images as the data preprocessor gives them."""

    def call(images: Tensor) -> list[Tensor]:
        high, wide = (want - have for want, have in zip(size, images.shape[2:], strict=True))
        pads = isinstance(network, (Anchors, Body)) and high >= 0 and wide >= 0
        if (high or wide) and not pads:
            raise ValueError(
                f'the file takes images of {size[0]} x {size[1]}, and one of the test set has '
                f'{images.shape[2]} x {images.shape[3]}: give a --size that suits all of them.'
            )
        pixels = network.pixels(F.pad(images, (0, wide, 0, high))).cpu()
        rows = [run(one[None]) for one in pixels]
        return [torch.cat(parts).to(images.device) for parts in zip(*rows, strict=True)]

    return call


def _instead(model: Any, network: Deployed, run: Run) -> Iterator[tuple[nn.Module, str, Any]]:
    """Attributes of modules, and what takes their place."""
    if isinstance(network, Classes):
        yield model, 'extract_feat', run
        yield model, 'projector', None
        for name in ('pool', 'head'):
            yield model, name, lambda x: x
    elif isinstance(network, Pixels):
        yield model, 'encode_decode', lambda images, _: run(images)[0]
    elif isinstance(network, Anchors):
        yield model, 'predict', lambda *given, **options: _predict(model, run, *given, **options)
    elif getattr(model, 'rpn_head', None) is None:
        yield model, 'extract_feat', lambda images: tuple(run(images))
    else:
        yield from _body(model, run)


def _body(model: Any, run: Run) -> Iterator[tuple[nn.Module, str, Any]]:
    """Feature maps, and then what the RPN makes of them."""
    rest: list[Tensor] = []
    levels = len(model.rpn_head.prior_generator.strides)

    def extract_feat(images: Tensor) -> tuple[Tensor, ...]:
        found = run(images)
        rest[:] = found[-2 * levels :]
        return tuple(found[: -2 * levels])

    yield model, 'extract_feat', extract_feat
    yield model.rpn_head, 'forward', lambda maps: (rest[:levels], rest[levels:])


def _predict(model: Any, run: Run, images: Tensor, samples: list, rescale: bool = True) -> list:
    """Detections from boxes (N, anchors, 4) and scores (N, anchors, K) before NMS."""
    from mmdet.models.layers import multiclass_nms
    from mmengine.structures import InstanceData

    config, found = model.bbox_head.test_cfg, []
    for boxes, scores, sample in zip(*run(images), samples, strict=True):
        scores = torch.cat([scores, scores.new_zeros(len(scores), 1)], 1)  # the background
        kept, labels = multiclass_nms(
            boxes, scores, config['score_thr'], config['nms'], config.get('max_per_img', -1)
        )
        boxes = kept[:, :4]
        if rescale:
            boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
        found.append(InstanceData(bboxes=boxes, scores=kept[:, 4], labels=labels))
    return model.add_pred_to_datasample(samples, found)
