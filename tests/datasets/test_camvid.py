"""CamVid in its published layout."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmkd.datasets import CamVidDataset
from mmkd.datasets.camvid import UNLABELLED


@pytest.fixture(params=['.png', '.jpg'])
def camvid(tmp_path, request):
    labels = np.arange(12, dtype=np.uint8).repeat(8).reshape(12, 8)
    for folder in ('img_dir/train', 'ann_dir/train'):
        (tmp_path / folder).mkdir(parents=True)
    image = np.full((12, 8, 3), 50, np.uint8)
    cv2.imwrite(str(tmp_path / f'img_dir/train/0001TP_006690{request.param}'), image)
    cv2.imwrite(str(tmp_path / 'ann_dir/train/0001TP_006690.png'), labels)
    return {
        'type': 'mmkd.CamVidDataset',
        'data_root': str(tmp_path),
        'data_prefix': {'img_path': 'img_dir/train', 'seg_map_path': 'ann_dir/train'},
        'serialize_data': False,
        'pipeline': [
            {'type': 'mmseg.LoadImageFromFile'},
            {'type': 'mmseg.LoadAnnotations'},
            {'type': 'mmseg.PackSegInputs'},
        ],
    }


def test_camvid_ignores_what_is_unlabelled(camvid):
    dataset = DATASETS.build(camvid)
    assert isinstance(dataset, CamVidDataset) and len(dataset) == 1
    rows = dataset[0]['data_samples'].gt_sem_seg.data[0, :, 0].tolist()
    assert rows == [*range(11), 255]
    assert dataset[0]['data_samples'].gt_sem_seg.data[0, :, 0].tolist() == rows


def test_camvid_subset_of_classes(camvid):
    dataset = DATASETS.build({**camvid, 'metainfo': {'classes': ('car', 'road')}})
    rows = dataset[0]['data_samples'].gt_sem_seg.data[0, :, 0].tolist()
    assert rows[8] == 0 and rows[3] == 1 and set(rows) == {0, 1, 255}
    assert dataset.metainfo['palette'] == [[64, 0, 128], [128, 64, 128]]


def test_camvid_has_eleven_colours_and_needs_no_label_for_the_rest():
    info = CamVidDataset.METAINFO
    assert len(info['classes']) == len(info['palette']) == UNLABELLED == 11
    assert len({tuple(colour) for colour in info['palette']}) == 11
