"""CIFAR-10 and CIFAR-100 in their binary form: https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd.registry import DATASETS

PIXELS = 3 * 32 * 32


@DATASETS.register_module()
class Cifar10(BaseDataset):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32, ten classes.

    ``data_root`` is the folder into which ``cifar-10-binary.tar.gz`` was unpacked. Every file is
    compared with its MD5 sum. Images are kept in memory and reach the pipeline as ``img``, in BGR
    as from a file, so it begins without a loading step.

    Args:
        data_root (str): has ``cifar-10-batches-bin``.
        train (bool): the training images, otherwise those of the test.
        **kwargs: of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: a file is missing; the message says where to get it.
        ValueError: a file that is not the published one.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            *('airplane', 'automobile', 'bird', 'cat', 'deer'),
            *('dog', 'frog', 'horse', 'ship', 'truck'),
        )
    )
    ARCHIVE = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
    FOLDER = 'cifar-10-batches-bin'
    TRAIN: ClassVar[dict[str, str]] = {
        'data_batch_1.bin': '5dd7e06a14cb22eb9f671a540d1b7c25',
        'data_batch_2.bin': '5ea93a67294ea407fff1d09f752e9692',
        'data_batch_3.bin': '942cd6a4bcdd0dd3c604fbe906cb4421',
        'data_batch_4.bin': 'ae636b3ba5c66a11e91e8cb52e771fcb',
        'data_batch_5.bin': '53f37980c15c3d472c316c40844f3f0d',
    }
    TEST: ClassVar[dict[str, str]] = {'test_batch.bin': '803d5f7f4d78ea53de84dbe85f74fb6d'}
    #: bytes in front of the pixels; the last of them is the label
    LABELS = 1

    def __init__(self, data_root: str = '', train: bool = True, **kwargs: Any) -> None:
        self.train = train
        self.images = np.zeros((0, 32, 32, 3), np.uint8)
        kwargs.setdefault('data_prefix', dict(img_path=self.FOLDER))
        super().__init__(data_root=data_root, **kwargs)

    @property
    def advice(self) -> str:
        """Where to get the files."""
        return f'download {self.ARCHIVE}, unpack it, and set data_root to where {self.FOLDER} lies'

    def load_data_list(self) -> list[dict]:
        """One entry per image; the images themselves go to ``images``."""
        files = self.TRAIN if self.train else self.TEST
        rows = np.concatenate([self._read(name, md5) for name, md5 in files.items()])
        pixels = rows[:, self.LABELS :].reshape(-1, 3, 32, 32)
        self.images = np.ascontiguousarray(pixels[:, ::-1].transpose(0, 2, 3, 1))
        return [
            dict(image=i, gt_label=int(label)) for i, label in enumerate(rows[:, self.LABELS - 1])
        ]

    def _read(self, name: str, md5: str) -> np.ndarray:
        """Records of a file, (N, labels and pixels) uint8."""
        path = Path(self.data_prefix['img_path']) / name
        if not path.is_file():
            raise FileNotFoundError(f'{type(self).__name__}: {path} is missing; {self.advice}.')
        data = path.read_bytes()
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(
                f'{type(self).__name__}: {path} is damaged or another file: its MD5 sum is '
                f'{found}, that of the published one {md5}; {self.advice}.'
            )
        return np.frombuffer(data, np.uint8).reshape(-1, self.LABELS + PIXELS)

    def get_data_info(self, idx: int) -> dict:
        """The image (32, 32, 3) and its label, as a loading step would leave them."""
        info = super().get_data_info(idx)
        image = self.images[info.pop('image')].copy()
        return dict(info, img=image, img_shape=(32, 32), ori_shape=(32, 32))

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an image, for ``ClassBalancedDataset``."""
        return [self.get_data_info(idx)['gt_label']]


@DATASETS.register_module()
class Cifar100(Cifar10):
    """CIFAR-100: as :class:`Cifar10`, with a hundred classes, of which the fine ones are used."""

    METAINFO: ClassVar[dict] = dict(
        classes=(
            *('apple', 'aquarium_fish', 'baby', 'bear', 'beaver', 'bed', 'bee', 'beetle'),
            *('bicycle', 'bottle', 'bowl', 'boy', 'bridge', 'bus', 'butterfly', 'camel'),
            *('can', 'castle', 'caterpillar', 'cattle', 'chair', 'chimpanzee', 'clock', 'cloud'),
            *('cockroach', 'couch', 'crab', 'crocodile', 'cup', 'dinosaur', 'dolphin'),
            *('elephant', 'flatfish', 'forest', 'fox', 'girl', 'hamster', 'house', 'kangaroo'),
            *('keyboard', 'lamp', 'lawn_mower', 'leopard', 'lion', 'lizard', 'lobster', 'man'),
            *('maple_tree', 'motorcycle', 'mountain', 'mouse', 'mushroom', 'oak_tree', 'orange'),
            *('orchid', 'otter', 'palm_tree', 'pear', 'pickup_truck', 'pine_tree', 'plain'),
            *('plate', 'poppy', 'porcupine', 'possum', 'rabbit', 'raccoon', 'ray', 'road'),
            *('rocket', 'rose', 'sea', 'seal', 'shark', 'shrew', 'skunk', 'skyscraper', 'snail'),
            *('snake', 'spider', 'squirrel', 'streetcar', 'sunflower', 'sweet_pepper', 'table'),
            *('tank', 'telephone', 'television', 'tiger', 'tractor', 'train', 'trout', 'tulip'),
            *('turtle', 'wardrobe', 'whale', 'willow_tree', 'wolf', 'woman', 'worm'),
        )
    )
    ARCHIVE = 'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz'
    FOLDER = 'cifar-100-binary'
    TRAIN: ClassVar[dict[str, str]] = {'train.bin': '6172c7755cfe09b2fe270c85cebc1b15'}
    TEST: ClassVar[dict[str, str]] = {'test.bin': '4499cfba6c016c1be1438163640a0898'}
    LABELS = 2
