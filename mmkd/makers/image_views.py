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

    @property
    def count(self) -> int:
        """Views of an image, V."""
        return len(self.pipelines) * (2 if self.flip else 1)

    def predictions(self, file: str) -> list[tuple[Any, bool, tuple[int, int]]]:
        """Data sample of each view, whether it was flipped, and (H, W) of the file.

        Raises:
            ValueError: the file cannot be decoded.
        """
        try:
            loaded = self.loader(dict(img_path=file, img_id=0))
        except Exception as error:  # noqa: BLE001  whatever a decoder says
            raise ValueError(f'{file} cannot be read ({error}).') from None
        if loaded is None or loaded.get('img') is None:
            raise ValueError(f'{file} is damaged or no image.')
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
            dict: ``size`` (H, W), ``boxes`` (P, 4) xyxy, ``scores`` and ``labels`` as lists.
        """
        pooled: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        size = (0, 0)
        for sample, flipped, size in self.predictions(file):
            found = sample.pred_instances.cpu().numpy()
            boxes = mirrored(found.bboxes, size[1]) if flipped else found.bboxes
            for label in np.unique(found.labels):
                own = (found.labels == label) & (found.scores >= least)
                pooled.setdefault(int(label), []).append((boxes[own], found.scores[own]))
        result: dict[str, Any] = dict(size=size, boxes=[], scores=[], labels=[])
        for label in sorted(pooled):
            parts = [np.concatenate(x) for x in zip(*pooled[label], strict=True)]
            boxes, scores = vote(*parts, views=self.count, rule=rule)
            boxes = boxes.clip(0, [size[1], size[0]] * 2)
            good = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1) & (scores >= least)
            result['boxes'] += boxes[good].round(3).tolist()
            result['scores'] += scores[good].round(6).tolist()
            result['labels'] += [label] * int(good.sum())
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
