"""Each shipped chain of small models trains to its end: a few steps a stage, on data of its layout.

Plans and single stages are tests of the suite (tests/configs, tests/chain); what one stage hands to
the next is seen only when they run. ``make test-chains``, some five minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmkd.chain import Chain
from mmkd.config import load_config
from mmkd.datasets.synthetic import write_coco

FOLDER = Path(__file__).parents[2] / 'configs' / 'chains'
#: those of small models are named after their data
CHAINS = [
    p
    for p in sorted(FOLDER.glob('*.py'))
    if p.stem.endswith(('cifar10', 'bccd', 'camvid', 'scenes'))
]
CELLS = dict(RBC=(2, 40), WBC=(1, 60), Platelets=(1, 16))  # how many, and their size
CIFAR = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']

STEPS = 3
EPOCH = {
    'options.train_cfg.max_epochs': 1,
    'options.train_cfg.val_interval': 1,
    'options.train_dataloader.num_batch_per_epoch': STEPS,
}


def asking(rounds: int) -> dict[str, int]:
    """Options of a chain whose students count iterations."""
    of_all = {key.replace('options', 'stages.teacher.options', 1): n for key, n in EPOCH.items()}
    keys = ('train_cfg.max_iters', 'train_cfg.val_interval', 'default_hooks.checkpoint.interval')
    own = {f'stages.student{i}.options.{key}': STEPS for i in range(rounds) for key in keys}
    return of_all | own


_mixup = asking(4) | {f'stages.ask{i}.make.{key}': 60 for i in range(4) for key in ('seeds', 'add')}
# A teacher whose BatchNorm has seen a few batches, and any score that it has, is a label.
_steps, _least = 'options.train_dataloader.num_batch_per_epoch', 'options.model.test_cfg.score_thr'
_sees = {f'stages.teacher.{_steps}': 20, f'stages.teacher.{_least}': 0.0}
_labels = asking(3) | _sees
_labels |= {f'stages.ask{i}.make.{key}': 0.0 for i in range(3) for key in ('threshold', 'least')}
_one_view = {'stages.labels.make.scales': [1.0]}
OPTIONS = dict(
    # ADL's sampler wants the whole dataset
    data_distillation_retinanet_bccd={
        **{key: n for key, n in EPOCH.items() if 'num_batch' not in key},
        **_sees,
        **_one_view,
    },
    data_distillation_pspnet_camvid=EPOCH | _one_view | {'stages.labels.make.threshold': 0.0},
    increment_retinanet_bccd=EPOCH
    | {
        f'stages.old.{_steps}': 20,
        f'stages.old.{_least}': 0.0,
        'stages.labels.make.threshold': 0.0,
        'stages.labels.make.least': 0.0,
    },
    data_distillation_maskrcnn_scenes=EPOCH
    | {'stages.teacher.options.model.test_cfg.rcnn.score_thr': 0.0},
    knowledge_adaptation_cls_cifar10=EPOCH | {f'stages.teacher.{_steps}': 20},
    low_rank_pre_regression_cls_cifar10=EPOCH | {'stages.low.make.most': 1.0},
    active_mixup_cls_cifar10=_mixup,
    random_mixup_cls_cifar10=_mixup,
    active_labels_retinanet_bccd=_labels,
    random_labels_retinanet_bccd=_labels,
    # the early checkpoint that teaches is of epoch 20
    eskd_cls_cifar10=EPOCH
    | {
        'stages.teacher.options.train_cfg.max_epochs': 20,
        'stages.teacher.options.train_dataloader.num_batch_per_epoch': 1,
    },
    inversion_cls_cifar10=EPOCH
    | {f'stages.images.make.{key}': n for key, n in dict(count=384, batch=128, steps=2).items()},
)


def write_cifar(root: Path) -> None:
    """As many images as the part of CIFAR-10 has, since configs name some by number."""
    random = np.random.default_rng(0)
    for split, count in (('train', 1000), ('val', 4)):
        for label, name in enumerate(CIFAR):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = random.integers(0, 100, (32, 32, 3), np.uint8)
                image[..., label % 3] += np.uint8(15 * label)
                cv2.imwrite(str(root / split / name / f'{i}.png'), image)


def write_bccd(root: Path) -> None:
    """As many images as BCCD has to train, since configs name some by number."""
    random = np.random.default_rng(0)
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for split, count in (('train', 205), ('val', 4)):
        names = [f'{split}{i}' for i in range(count)]
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names))
        for name in names:
            image, objects = np.full((192, 256, 3), 200, np.uint8), ''
            for label, (cell, (number, size)) in enumerate(CELLS.items()):
                for x, y in random.integers(0, [256 - size, 192 - size], (number, 2)):
                    image[y : y + size, x : x + size, label] = 20
                    corners = zip(
                        ('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + size, y + size), strict=True
                    )
                    box = ''.join(f'<{k}>{v}</{k}>' for k, v in corners)
                    objects += f'<object><name>{cell}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>'
            cv2.imwrite(str(root / 'JPEGImages' / f'{name}.jpg'), image)
            size = '<size><width>256</width><height>192</height><depth>3</depth></size>'
            text = f'<annotation>{size}{objects}</annotation>'
            (root / 'Annotations' / f'{name}.xml').write_text(text)


def write_camvid(root: Path) -> None:
    """As many images as CamVid has to train, since configs name some by number."""
    random = np.random.default_rng(0)
    for split, count in (('train', 367), ('val', 4)):
        for kind in ('img_dir', 'ann_dir'):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            labels = np.repeat(random.integers(0, 12, (1, 240), np.uint8), 180, 0)
            image = np.stack([labels * 20, 255 - labels * 20, labels * 10], -1)
            cv2.imwrite(str(root / 'img_dir' / split / f'{i:03d}.png'), image)
            cv2.imwrite(str(root / 'ann_dir' / split / f'{i:03d}.png'), labels)


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_cifar(root / 'cifar10')
    write_bccd(root / 'bccd')
    write_camvid(root / 'camvid')
    write_coco(root / 'scenes', n_train=300, n_val=4, size=(192, 144))
    return root


@pytest.mark.parametrize('path', CHAINS, ids=lambda path: path.stem)
def test_trains_to_its_end_and_is_done(path, data, tmp_path, monkeypatch):
    for name in ('cifar10', 'bccd', 'camvid', 'scenes'):
        monkeypatch.setenv(f'{name.upper()}_ROOT', f'{data / name}/')
    monkeypatch.chdir(tmp_path)
    config = load_config(str(path))
    config.merge_from_dict(OPTIONS.get(path.stem, EPOCH))
    said = []
    for _ in range(2):
        chain = Chain(config.stages, 'work', 0, config.get('options'))
        said = chain.run(say=said.append) and said
    done = [line for line in said if line.endswith('done already')]
    assert len(done) == len(config.stages), said
