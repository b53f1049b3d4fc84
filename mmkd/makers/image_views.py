"""A network on several views of an image file: other sizes and flips, mapped back and averaged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.config import dataset_leaves, type_name
from mmkd.makers.box_voting import mirrored, vote

#: of the pipeline, transforms that a view does itself or that need annotations
LEFT_OUT = ('LoadAnnotations', 'LoadPanopticAnnotations')


class UnreadableImage(ValueError):
    """A file that cannot be decoded."""


class ImageViews:
    """What a network says of an image file, over views of it.

    Args:
        model (nn.Module): in eval mode; a detector or segmentor.
        config (Config): whose test pipeline is used.
        scales (Sequence[float]): of each view, times the size to which the pipeline resizes.
        flip (bool): each of them flipped from left to right as well.

    Raises:
        ValueError: other scales than 1, and no transform that resizes.
    """

    def __init__(
        self, model: nn.Module, config: Any, scales: Sequence[float] = (1.0,), flip: bool = True
    ) -> None:
        self.model, self.flip = model, flip
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmengine'):
            pipeline = next(dataset_leaves(config.test_dataloader.dataset))['pipeline']
            load, *rest = [t for t in pipeline if type_name(t) not in LEFT_OUT]
            self.loader = Compose([copy.deepcopy(load)])
            self.pipelines = [Compose(_resized(rest, scale)) for scale in scales]
        if self.count > 1:
            _show_probabilities(model)

    @property
    def count(self) -> int:
        """Views of an image, V."""
        return len(self.pipelines) * (2 if self.flip else 1)

    def predictions(self, file: str) -> list[tuple[Any, bool, tuple[int, int]]]:
        """Data sample of each view, whether it was flipped, and (H, W) of the file.

        Raises:
            UnreadableImage: the file cannot be decoded.
        """
        try:
            loaded = self.loader(dict(img_path=file, img_id=0))
        except Exception as error:  # noqa: BLE001  whatever a decoder says
            raise UnreadableImage(f'{file} cannot be read ({error}).') from None
        if loaded is None or loaded.get('img') is None:
            raise UnreadableImage(f'{file} is damaged or no image.')
        size = tuple(loaded['img'].shape[:2])
        found = []
        for flipped in (False, True)[: 2 if self.flip else 1]:
            for pipeline in self.pipelines:
                view = copy.copy(loaded)
                if flipped:
                    view['img'] = mmcv.imflip(loaded['img'])
                with torch.no_grad():
                    sample = self.model.test_step(pseudo_collate([pipeline(view)]))[0]
                found.append((sample, flipped, size))
        return found

    def boxes(
        self, file: str, least: float = 0.05, rule: str = 'max'
    ) -> dict[str, list | tuple[int, int]]:
        """Voted detections of a file, in its pixels.

        Returns:
            dict: ``size`` (H, W), ``boxes`` (P, 4) xyxy, ``scores`` and ``labels`` as lists; of a
                network with instance masks also ``masks``, run-length codes as in COCO.
        """
        pooled: dict[int, list[list[np.ndarray]]] = {}
        size, masked = (0, 0), False
        for sample, flipped, size in self.predictions(file):
            found = sample.pred_instances.cpu().numpy()
            boxes = mirrored(found.bboxes, size[1]) if flipped else found.bboxes
            masked = 'masks' in found
            for label in np.unique(found.labels):
                own = (found.labels == label) & (found.scores >= least)
                part = [boxes[own], found.scores[own]]
                if masked:
                    part.append(found.masks[own][..., ::-1] if flipped else found.masks[own])
                pooled.setdefault(int(label), []).append(part)
        result: dict[str, Any] = dict(size=size, boxes=[], scores=[], labels=[])
        result |= dict(masks=[]) if masked else {}
        for label in sorted(pooled):
            boxes, scores, *masks = (np.concatenate(x) for x in zip(*pooled[label], strict=True))
            boxes, scores, weights = vote(boxes, scores, views=self.count, rule=rule)
            boxes = boxes.clip(0, [size[1], size[0]] * 2)
            good = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1) & (scores >= least)
            for row in np.flatnonzero(good):
                if masks:
                    mask = _mean_mask(masks[0], weights[row], boxes[row])
                    if not mask.any():
                        continue
                    result['masks'].append(encoded(mask))
                result['boxes'].append(boxes[row].round(3).tolist())
                result['scores'].append(round(float(scores[row]), 6))
                result['labels'].append(label)
        return result

    def probabilities(self, file: str) -> Tensor:
        """Mean probabilities of the classes of each pixel of a file, (K, H, W)."""
        total: Any = 0
        for sample, flipped, size in self.predictions(file):
            logits = sample.seg_logits.data.float().cpu()
            own = logits.softmax(0) if len(logits) > 1 else _two(logits.sigmoid())
            own = own.flip(-1) if flipped else own
            if tuple(own.shape[1:]) != size:
                own = F.interpolate(own[None], size, mode='bilinear')[0]
            total = total + own
        return total / self.count


def _show_probabilities(model: nn.Module) -> None:
    """Let a mask head of RoIs give probabilities of pixels, 0 to 255, which can be averaged.

    Other networks give masks of True and False, whose mean is a vote.
    """
    head = getattr(model, 'roi_head', None)
    if head is not None and 'mask_thr_binary' in (head.test_cfg or {}):
        head.test_cfg.mask_thr_binary = -1


def _mean_mask(masks: np.ndarray, weights: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Where the weighted mean of masks (P, H, W) is at least 1/2, within a box: (H, W).

    Args:
        masks (np.ndarray): of bool, or of uint8, probabilities times 255.
        weights (np.ndarray): (P,), of sum 1.
        box (np.ndarray): (4,) xyxy.
    """
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    inside = slice(top, bottom), slice(left, right)
    voters = np.flatnonzero(weights)
    mean = sum(weights[i] * masks[i][inside].astype(np.float64) for i in voters)
    mask = np.zeros(masks.shape[1:], dtype=np.uint8)
    # Half of 255; sums of weights are exact to 1e-9.
    mask[inside] = mean >= (0.5 if masks.dtype == bool else 127.5) - 1e-9
    return mask


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """The run-length code of a mask (H, W) of 0 and 1, as COCO's files have it."""
    from pycocotools import mask as coding

    code = coding.encode(np.asfortranarray(mask))
    return dict(size=list(map(int, code['size'])), counts=code['counts'].decode())


def _two(foreground: Tensor) -> Tensor:
    return torch.cat((1 - foreground, foreground))


def _resized(pipeline: Sequence[Any], scale: float) -> list[Any]:
    """The pipeline with every size to which it resizes times ``scale``."""
    changed, found = copy.deepcopy(list(pipeline)), False
    for transform in changed:
        if 'Resize' in type_name(transform) and transform.get('scale') is not None:
            sides = transform['scale']
            transform['scale'] = tuple(max(1, round(side * scale)) for side in sides)
            found = True
    if scale != 1 and not found:
        raise ValueError(
            f'PseudoLabels: scales={scale} needs a Resize with a scale in the test pipeline, which '
            f'has {", ".join(map(type_name, pipeline))}. Leave scales out.'
        )
    return changed
