"""TrustedImages: images of a new domain on which a teacher is to be trusted."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.families import classifier
from mmkd.makers.networks import given_classifier
from mmkd.makers.pictures import features_of, files_of
from mmkd.options import check_number, check_size
from mmkd.registry import MAKERS

MOST = 10**6


def cluster_difference(features: Tensor, centroids: Tensor) -> Tensor:
    """``|cos(h, c_1) - cos(h, c_2)|`` to the two nearest centroids, (N, D) and (K, D) -> (N,)."""
    cosines = F.normalize(features, dim=1) @ F.normalize(centroids, dim=1).T
    best = cosines.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def trusted(features: Tensor, labels: Tensor, share: float) -> list[int]:
    """The share of each pseudo-class with the largest difference, at least one, in order.

    Args:
        features (Tensor): (N, D), of the teacher.
        labels (Tensor): (N,), the class that it predicts.
        share (float): of the images of a class.
    """
    classes = labels.unique()
    centroids = torch.stack([features[labels == c].mean(0) for c in classes])
    difference = cluster_difference(features, centroids)
    chosen: list[int] = []
    for label in classes:
        own = (labels == label).nonzero()[:, 0]
        order = difference[own].argsort(descending=True, stable=True)
        chosen += own[order[: max(round(share * len(own)), 1)]].tolist()
    return sorted(chosen)


@MAKERS.register_module()
class TrustedImages(Maker):
    """Images that a teacher of another domain places clearly, for ``mmkd.KnowledgeAdaptation``.

    Ruder et al., 2017: pseudo-classes are the teacher's predictions, their centroids the means of
    its pooled features. Trust is the maximum cluster difference, that of the cosines to the two
    nearest centroids; the best ``share`` of each pseudo-class is trusted. ``trusted.json`` lists
    their files. The stage's ``teacher=`` is the teacher.

    Args:
        target (str): a folder of images, or a config whose training images count.
        share (float): of each pseudo-class, above 0 and at most 1.
        size (list[int]): height and width to which images are scaled, those of the teacher.

    Raises:
        ValueError: no teacher, or no image classifier; images of fewer than two pseudo-classes;
            features that are not finite.
    """

    def __init__(self, target: str, share: float = 0.1, size: Sequence[int] = (224, 224)) -> None:
        self.target = target
        self.share = check_number('TrustedImages', 'share', share, most=1, above=0)
        self.size = check_size('TrustedImages', size)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        teacher = given_classifier('TrustedImages', given)
        files = files_of(self.target, MOST)
        features = features_of(teacher, classifier.embedding_tap(teacher.model), files, self.size)
        if not bool(features.isfinite().all()):
            raise ValueError(
                'TrustedImages: features of the target are not finite. Is the checkpoint of the '
                'teacher sound?'
            )
        with torch.no_grad():
            labels = teacher.model.head(features.to(next(teacher.model.parameters()))).argmax(1)
        if len(labels.unique()) < 2:
            raise ValueError(
                f'TrustedImages: the teacher sees {len(labels.unique())} class in {len(files)} '
                f'images of {self.target}, but trust compares two. Is size={self.size} that of its '
                'training images?'
            )
        chosen = trusted(features, labels.cpu(), self.share)
        path = osp.join(work_dir, 'trusted.json')
        write_json(path, dict(images=[files[i] for i in chosen], of=len(files), share=self.share))
        return Product('', path, work_dir)
