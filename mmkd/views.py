"""Other pictures of what the student sees, for teachers: another modality, or another augmentation.

A sample carries them under ``views``, by name, as pixels (C, h, w) of the image without padding, in
the student's geometry. Those of another resolution are made in the batch, see :mod:`mmkd.scales`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd.pixels import Pixels
from mmkd.scales import Rescale


def looked_at(view: str, inputs: Tensor, samples: list, pixels: Pixels) -> tuple[Tensor, Pixels]:
    """The batch that a teacher looks at, and what format its pixels have.

    Args:
        view (str): ``''``: the student's own; else the name of a view.
        inputs (Tensor): the student's batch (N, C, H, W), padded.
        samples (list): of it.
        pixels (Pixels): its format.

    Returns:
        tuple: (N, C', H, W), padded as the student's batch with 0, and raw pixels' format.

    Raises:
        ValueError: a sample without the view, or one of another size than its image.
    """
    if not view:
        return inputs, pixels
    found = [_view(view, sample) for sample in samples]
    batch = inputs.new_zeros(len(found), len(found[0]), *inputs.shape[2:])
    for row, image, sample in zip(batch, found, samples, strict=True):
        shape = tuple(sample.metainfo.get('img_shape', image.shape[1:])[:2])
        if tuple(image.shape[1:]) != shape:
            raise ValueError(
                f'view {view!r} has {tuple(image.shape[1:])} pixels and its image {shape}: '
                'something changed the size of one of them alone. Load the view in front of what '
                'moves pixels, and split or keep it behind: see LoadView and KeepView.'
            )
        row[:, : shape[0], : shape[1]] = image
    return batch, Pixels(None, batch.shape[1])


def _view(view: str, sample: Any) -> Tensor:
    views = sample.views if 'views' in sample else None
    if views is None or view not in views:
        known = ', '.join(views.keys()) if views is not None else ''
        raise ValueError(
            f'A teacher looks at view={view!r}, but the samples carry {known or "no views"}. Let '
            'the training pipeline keep or load it (mmkd.KeepView, mmkd.LoadView) and end with '
            'mmkd.PackViews.'
        )
    return getattr(views, view)


def check_batches(view: str, student: nn.Module) -> None:
    """Refuse a student whose data preprocessor changes batches in ways that views do not follow.

    Raises:
        ValueError: mixtures of images, or augmentations of a batch other than Rescale.
    """
    if not view:
        return
    preprocessor = getattr(student, 'data_preprocessor', None)
    augments = getattr(preprocessor, 'batch_augments', None) or []
    other = [type(one).__name__ for one in augments if not isinstance(one, Rescale)]
    if getattr(preprocessor, 'mixers', None):
        other.append('mixup or cutmix')
    if other:
        raise ValueError(
            f"A teacher looks at view={view!r}, but the student's data_preprocessor has "
            f'{", ".join(other)}, which would change the image and not the view. Leave it out.'
        )
