"""Images with what a black box said of them, as the file of ``mmkd make ActiveMixup`` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmkd.registry import DATASETS
from mmkd.teachers.black_box import as_logits
from mmkd.teachers.cached import read_scores


@DATASETS.register_module()
class AnsweredImages(BaseDataset):
    """Images and their probabilities, the target of the cross entropy (``gt_score``).

    A random change of the pipeline also changes what the answer was about: take flips and small
    crops, nothing else.

    Args:
        answers (str): ``.npz`` or ``.pt`` with ``keys`` (paths of images, from the folder of this
            file), ``scores``, probabilities (images, K), and optionally ``classes``, K names.
        **kwargs: of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without the two; an image named twice; scores that are no probabilities;
            other classes in ``metainfo``, or in another order.
    """

    def __init__(self, answers: str, **kwargs: Any) -> None:
        self.answers = answers
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image: ``img_path``, ``gt_score`` (K,) and ``gt_label``, the likeliest."""
        held = read_scores('AnsweredImages', self.answers)
        scores = held['scores']
        count, classes = len(held['keys']), scores.shape[-1]
        as_logits(f'AnsweredImages {self.answers}', scores, count, classes, False, False)
        if names := tuple(map(str, held.get('classes', ()))):
            given = tuple(self._metainfo.setdefault('classes', names))
            if given != names:
                raise ValueError(
                    f'AnsweredImages: metainfo has the classes {", ".join(given)}, but the scores '
                    f'in {self.answers} are of {", ".join(names)}. Leave classes out of metainfo.'
                )
        folder = Path(self.answers).expanduser().parent
        return [
            dict(img_path=str(folder / key), gt_label=int(row.argmax()), gt_score=row)
            for key, row in zip(held['keys'], scores, strict=True)
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The likeliest class of an image, for ``ClassBalancedDataset``."""
        return [self.get_data_info(idx)['gt_label']]
