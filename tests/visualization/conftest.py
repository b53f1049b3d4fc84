"""Small distillation configs of a detector and a segmentor on synthetic scenes."""

import pytest

from mmkd.config import load_config
from mmkd.datasets.synthetic import write_cityscapes, write_coco

DETECTOR = """
_base_ = ['mmkd::demo_fgfi.py']
model = dict(
    teacher=dict(checkpoint='random'),
    objectives=dict(cwd=dict(type='mmkd.CWD'), kd=dict(type='mmkd.KD')),
)
"""

SEGMENTOR = """
_base_ = ['mmkd::small/pspnet_r18w8_camvid.py']
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/pspnet_r18w8_camvid.py', checkpoint='random'),
    objectives=dict(cwd=dict(type='mmkd.CWD'), kd=dict(type='mmkd.KD')),
)
"""


@pytest.fixture(scope='session')
def detector_file(tmp_path_factory):
    """Path of a config whose images have unequal sizes in training."""
    folder = tmp_path_factory.mktemp('detector')
    write_coco(folder / 'data', 4, 2, size=(96, 72))
    path = folder / 'detector.py'
    resize = dict(type='RandomResize', scale=(96, 72), ratio_range=(0.6, 1.4), keep_ratio=True)
    text = DETECTOR + f"data_root = '{folder}/data/'\n"
    for split in ('train', 'val'):
        text += f'{split}_dataloader = dict(dataset=dict(data_root=data_root))\n'
    text += (
        f"val_evaluator = dict(ann_file=data_root + 'annotations/val.json')\nresize = {resize}\n"
    )
    path.write_text(text)
    return path


@pytest.fixture
def detector(detector_file):
    config = load_config(str(detector_file))
    config.train_dataloader.dataset.pipeline.insert(2, config.resize)
    return config


@pytest.fixture(scope='session')
def _cityscapes(tmp_path_factory):
    return write_cityscapes(tmp_path_factory.mktemp('segmentor') / 'data', 3, 2, size=(80, 64))


@pytest.fixture
def segmentor(_cityscapes, tmp_path):
    path = tmp_path / 'segmentor.py'
    path.write_text(SEGMENTOR)
    config = load_config(str(path))
    for split in ('train', 'val'):
        entry = config[f'{split}_dataloader'].dataset
        entry.update(type='CityscapesDataset', data_root=str(_cityscapes))
        entry.data_prefix = dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}')
    config.model.student.data_preprocessor.size = (64, 80)
    # Smaller than the crop: padded by the preprocessor.
    config.train_dataloader.dataset.pipeline[2].update(scale=(80, 64), ratio_range=(0.5, 1.0))
    config.train_dataloader.dataset.pipeline[3].crop_size = (64, 80)
    config.val_dataloader.dataset.pipeline[1].scale = (64, 51)
    return config
